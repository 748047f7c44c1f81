/** What the shell learns from a failure. */
export const exitCodes = {
  failed: 1,
  /** The command line or the configuration is wrong. */
  usage: 2,
  /** Nothing answers where the platform should be. */
  unreachable: 3,
  /** The platform answered: not allowed. */
  refused: 4,
  /** The platform answered: there is no such thing. */
  absent: 5,
  interrupted: 130,
} as const;

/** A failure that a person reads, without a stack trace: what happened and what to do next. */
export class CliFailure extends Error {
  /** The next step: a sentence or a command. */
  readonly next: string;
  readonly exitCode: number;

  constructor(message: string, next: string, exitCode: number = exitCodes.failed) {
    super(message);
    this.name = 'CliFailure';
    this.next = next;
    this.exitCode = exitCode;
  }
}

/** The innermost message: Node wraps network errors in `fetch failed`, several addresses in an AggregateError. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  if (error instanceof Error && error.cause !== undefined) return reasonOf(error.cause);
  return error instanceof Error ? error.message : String(error);
}

/** Two lines for a terminal, or one object for a program. */
export function formatFailure(error: unknown, json: boolean): string {
  const known = error instanceof CliFailure;
  const message = known ? error.message : reasonOf(error);
  const next = known ? error.next : 'run it again with SOMA_DEBUG=1 and report the trace';
  return json ? `${JSON.stringify({ error: message, next })}\n` : `error: ${message}\n next: ${next}\n`;
}
