import type { Session, Turn } from './gateway.ts';

/** Columns of equal width, two spaces apart; the last one is as long as it is. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const format = (line: readonly string[]) =>
    line.map((cell, column) => (column === line.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  ');
  return `${lines.map(format).join('\n')}\n`;
}

/** A session in words. */
export function formatSession(session: Session): string {
  const lines = [
    `session   ${session.id}`,
    `status    ${session.status}`,
    `workflow  ${session.workflowId}`,
    `created   ${session.createdAt}`,
  ];
  for (const turn of session.turns ?? (session.turn ? [session.turn] : [])) lines.push('', ...turnLines(turn));
  return `${lines.join('\n')}\n`;
}

function turnLines(turn: Turn): string[] {
  const unusual = turn.status === 'completed' ? '' : ` (${turn.error ?? turn.status})`;
  return [`question  ${turn.prompt ?? ''}`, `answer    ${turn.answer}${unusual}`.trimEnd()];
}

/** Times of one session as its client saw them, in milliseconds. */
export interface Latencies {
  /** Getting a token from Keycloak. */
  readonly signInMs: number;
  /** From sending the question to holding the whole answer. */
  readonly answerMs: number;
  /** Until the first token arrived, when the answer was streamed. */
  readonly firstTokenMs?: number;
}

/** What `--report` prints: the proof that a session really went through, and how to go on. */
export function formatReport(session: Session, turn: Turn, latencies: Latencies, command: string): string {
  const lines = [
    `question  ${turn.prompt ?? ''}`,
    `answer    ${turn.answer}`,
    `session   ${session.id}`,
    `workflow  ${session.workflowId}`,
    `latency   ${formatLatencies(turn, latencies)}`,
    `next      ${command} session turn ${session.id} "and then?"`,
    `          ${command} session show ${session.id}`,
  ];
  return `${lines.join('\n')}\n`;
}

function formatLatencies(turn: Turn, latencies: Latencies): string {
  const parts = [`answer ${milliseconds(latencies.answerMs)}`];
  if (latencies.firstTokenMs !== undefined) parts.push(`first token ${milliseconds(latencies.firstTokenMs)}`);
  for (const [name, value] of Object.entries(turn.timings ?? {})) {
    if (value !== null) parts.push(`${wordsOf(name)} ${milliseconds(value)}`);
  }
  parts.push(`sign-in ${milliseconds(latencies.signInMs)}`);
  return parts.join(', ');
}

/** `firstTokenMs` → `first token`: timings of the platform are named in camel case. */
function wordsOf(name: string): string {
  return name.replace(/Ms$/, '').replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
