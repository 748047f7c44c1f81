import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { CliFailure } from './failure.ts';
import { Gateway, pageSchema, type Session, sessionSchema, type Turn, turnSchema } from './gateway.ts';
import { formatReport, formatSession, formatTable, type Latencies } from './print.ts';
import type { Target } from './target.ts';

/** What a session command needs of its surroundings. */
export interface SessionContext {
  readonly target: () => Promise<Target>;
  readonly signal: AbortSignal;
  readonly json: boolean;
  /** Writes a result to standard output. */
  readonly write: (text: string) => void;
  /** How this program was called, for hints: `soma` or `npx soma`. */
  readonly command: string;
}

export interface StartOptions {
  readonly question?: string;
  readonly persona?: string;
  readonly idempotencyKey?: string;
  readonly stream?: boolean;
  readonly report?: boolean;
}

const path = (id: string, rest = '') => `/v1/sessions/${encodeURIComponent(id)}${rest}`;

function print(context: SessionContext, value: unknown, text: string): void {
  context.write(context.json ? `${JSON.stringify(value)}\n` : text);
}

async function signIn(context: SessionContext): Promise<{ gateway: Gateway; signInMs: number }> {
  const target = await context.target();
  const started = performance.now();
  const gateway = await Gateway.signIn(target, context.signal);
  return { gateway, signInMs: performance.now() - started };
}

/** Starts a session, asks its first question when there is one, and prints the answer. */
export async function startSession(context: SessionContext, options: StartOptions): Promise<void> {
  const { gateway, signInMs } = await signIn(context);
  const stream = options.stream === true && options.question !== undefined;
  const headers = { 'idempotency-key': options.idempotencyKey ?? randomUUID() };
  const persona = options.persona === undefined ? {} : { persona: options.persona };
  const prompt = options.question === undefined || stream ? {} : { prompt: options.question };
  const started = performance.now();
  const session = await gateway.json(sessionSchema, 'POST', '/v1/sessions', {
    body: { ...persona, ...prompt },
    headers,
  });
  if (stream) {
    const { turn, firstTokenMs } = await streamTurn(context, gateway, session.id, options.question ?? '', started);
    const times = {
      signInMs,
      answerMs: performance.now() - started,
      ...(firstTokenMs === undefined ? {} : { firstTokenMs }),
    };
    if (options.report || context.json) report(context, session, turn, times);
    return;
  }
  const times = { signInMs, answerMs: performance.now() - started };
  if (options.report && session.turn) report(context, session, { prompt: options.question, ...session.turn }, times);
  else print(context, session, formatSession(session));
}

function report(context: SessionContext, session: Session, turn: Turn, times: Latencies): void {
  print(context, { ...session, turn, latencies: times }, formatReport(session, turn, times, context.command));
}

/** Asks one more question in a session. */
export async function askTurn(context: SessionContext, id: string, question: string, stream: boolean): Promise<void> {
  const { gateway } = await signIn(context);
  if (stream) {
    const { turn } = await streamTurn(context, gateway, id, question, performance.now());
    if (context.json) context.write(`${JSON.stringify(turn)}\n`);
    return;
  }
  const headers = { 'idempotency-key': randomUUID() };
  const turn = await gateway.json(turnSchema, 'POST', path(id, '/turns'), { body: { prompt: question }, headers });
  print(context, turn, `${turn.answer ?? `(${turn.status ?? 'no answer'})`}\n`);
}

const tokenData = z.looseObject({
  text: z.string().optional(),
  delta: z.string().optional(),
  token: z.string().optional(),
});
const failureData = z.looseObject({
  detail: z.string().optional(),
  message: z.string().optional(),
  error: z.string().optional(),
});

/** Asks a question and prints its answer while it is generated. */
async function streamTurn(
  context: SessionContext,
  gateway: Gateway,
  id: string,
  question: string,
  started: number,
): Promise<{ turn: Turn; firstTokenMs: number | undefined }> {
  let answer = '';
  let firstTokenMs: number | undefined;
  const call = { body: { prompt: question }, headers: { 'idempotency-key': randomUUID() } };
  for await (const { event, data } of gateway.events('POST', path(id, '/turns'), call)) {
    if (event === 'turn.token') {
      const text = textOf(JSON.parse(data));
      firstTokenMs ??= performance.now() - started;
      answer += text;
      if (!context.json) context.write(text);
    } else if (event === 'turn.restarted') {
      // The worker died and another one begins the answer anew: what was printed is void.
      answer = '';
      if (!context.json) context.write('\n[the answer begins anew]\n');
    } else if (event === 'turn.failed') {
      throw turnFailed(JSON.parse(data), context.command);
    } else if (event === 'turn.completed' || event === 'turn.cancelled') {
      if (!context.json) context.write(event === 'turn.cancelled' ? ' [cancelled]\n' : '\n');
      return { turn: endedTurn(JSON.parse(data), question, answer), firstTokenMs };
    }
  }
  throw new CliFailure(
    'the gateway ended the stream before the answer was complete',
    `the answer goes on without you: ${context.command} session show ${id}`,
  );
}

function endedTurn(data: unknown, question: string, answer: string): Turn {
  const parsed = turnSchema.safeParse(data);
  const turn = parsed.success ? parsed.data : {};
  return { ...turn, prompt: question, answer: turn.answer ?? answer };
}

function turnFailed(data: unknown, command: string): CliFailure {
  const parsed = failureData.safeParse(data);
  const problem = parsed.success ? (parsed.data.error ?? parsed.data.detail ?? parsed.data.message) : undefined;
  return new CliFailure(`the turn failed: ${problem ?? 'no reason was given'}`, `${command} logs orchestrator`);
}

function textOf(value: unknown): string {
  const parsed = tokenData.safeParse(value);
  return parsed.success ? (parsed.data.text ?? parsed.data.delta ?? parsed.data.token ?? '') : '';
}

/** Lists the tenant's sessions, newest first. */
export async function listSessions(
  context: SessionContext,
  options: { limit: string; cursor?: string },
): Promise<void> {
  const { gateway } = await signIn(context);
  const query = new URLSearchParams({ limit: options.limit, ...(options.cursor ? { cursor: options.cursor } : {}) });
  const page = await gateway.json(pageSchema, 'GET', `/v1/sessions?${query}`);
  const sessions = page.sessions ?? page.items ?? [];
  const rows = sessions.map(({ id, status, createdAt, workflowId }) => [id, status, createdAt ?? '', workflowId ?? '']);
  const more = page.nextCursor ? `more: ${context.command} session list --cursor ${page.nextCursor}\n` : '';
  const empty = `no sessions yet: ${context.command} session start --question "..."\n`;
  print(
    context,
    page,
    rows.length === 0 ? empty : formatTable(['SESSION', 'STATUS', 'CREATED', 'WORKFLOW'], rows) + more,
  );
}

/** Shows one session with its turns. */
export async function showSession(context: SessionContext, id: string): Promise<void> {
  const { gateway } = await signIn(context);
  const session = await gateway.json(sessionSchema, 'GET', path(id));
  print(context, session, formatSession(session));
}

/** Cancels the turn that runs, or closes the session for good. */
export async function endSession(context: SessionContext, id: string, close: boolean): Promise<void> {
  const { gateway } = await signIn(context);
  if (close) await gateway.done('DELETE', path(id));
  else await gateway.done('POST', path(id, '/cancel'));
  print(
    context,
    { id, [close ? 'closed' : 'cancelled']: true },
    `${close ? 'closed' : 'cancelled the turn of'} ${id}\n`,
  );
}
