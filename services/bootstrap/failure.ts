/** A failure that a person reads: what went wrong and what to do next. It is printed without a stack trace. */
export class Failure extends Error {
  /** The next step, as an imperative sentence. */
  readonly fix: string;

  constructor(message: string, fix: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'Failure';
    this.fix = fix;
  }
}

/** The innermost message of an error: Node wraps network errors in a `fetch failed` or an AggregateError. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return messageOf(error.errors[0]);
  if (error instanceof Error) {
    return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`;
  }
  return String(error);
}

/** The `code` of a system, TLS, gRPC or Postgres error, or the HTTP status of an API error. */
export function codeOf(error: unknown): string | number | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  if ('code' in error && (typeof error.code === 'string' || typeof error.code === 'number')) return error.code;
  return 'cause' in error ? codeOf(error.cause) : undefined;
}
