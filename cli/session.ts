import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { ServerEvent } from './events.ts';
import { CliFailure, exitCodes } from './failure.ts';
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
  if (session.turn?.status === 'failed') throw turnFailed(session.turn, context.command);
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
  print(context, turn, `${turn.answer}\n`);
}

const tokenData = z.object({ text: z.string() });

/** What a turn that is being streamed has come to. */
interface Progress {
  answer: string;
  firstTokenMs: number | undefined;
  /** Number of the last event; the same events come again after a reconnection. */
  lastId: number;
}

const longestOutage = 20;
const pauseMs = 500;

/** Asks a question and prints its answer while it is generated; asks again with the same key when a gateway goes. */
async function streamTurn(
  context: SessionContext,
  gateway: Gateway,
  id: string,
  question: string,
  started: number,
): Promise<{ turn: Turn; firstTokenMs: number | undefined }> {
  const call = { body: { prompt: question }, headers: { 'idempotency-key': randomUUID() } };
  const progress: Progress = { answer: '', firstTokenMs: undefined, lastId: 0 };
  for (let attempt = 1; attempt <= longestOutage; attempt += 1) {
    const turn = await readTurn(context, gateway.events('POST', path(id, '/turns'), call), progress, started);
    if (turn !== undefined) {
      if (!context.json) context.write(turn.status === 'cancelled' ? ' [cancelled]\n' : '\n');
      return { turn: { ...turn, prompt: question }, firstTokenMs: progress.firstTokenMs };
    }
    await sleep(pauseMs, undefined, { signal: context.signal });
  }
  throw new CliFailure(
    'the gateway ended the stream before the answer was complete',
    `the answer goes on without you: ${context.command} session show ${id}`,
  );
}

/** @returns the ended turn, or undefined when the stream broke before its end */
async function readTurn(
  context: SessionContext,
  events: AsyncIterable<ServerEvent>,
  progress: Progress,
  started: number,
): Promise<Turn | undefined> {
  try {
    for await (const { id, event, data } of events) {
      if (id !== undefined && Number(id) <= progress.lastId) continue;
      progress.lastId = Number(id ?? progress.lastId);
      if (event === 'turn.token') showToken(context, tokenData.parse(JSON.parse(data)).text, progress, started);
      if (event === 'turn.restarted') restart(context, progress);
      if (event === 'turn.failed') throw turnFailed(JSON.parse(data), context.command);
      if (event === 'turn.completed' || event === 'turn.cancelled') return turnSchema.parse(JSON.parse(data));
    }
  } catch (error) {
    // Only a connection that broke is worth another try, and only after it had been there.
    const broken =
      error instanceof TypeError || (error instanceof CliFailure && error.exitCode === exitCodes.unreachable);
    if (!broken || progress.lastId === 0) throw error;
  }
  return undefined;
}

function showToken(context: SessionContext, text: string, progress: Progress, started: number): void {
  progress.firstTokenMs ??= performance.now() - started;
  progress.answer += text;
  if (!context.json) context.write(text);
}

/** The worker died and another one begins the answer anew: what was printed is void. */
function restart(context: SessionContext, progress: Progress): void {
  if (!context.json && progress.answer !== '') context.write('\n[the answer begins anew]\n');
  progress.answer = '';
}

const failureData = z.looseObject({ error: z.string().nullish() });

function turnFailed(data: unknown, command: string): CliFailure {
  const parsed = failureData.safeParse(data);
  const problem = parsed.success ? parsed.data.error : undefined;
  return new CliFailure(`the turn failed: ${problem ?? 'no reason was given'}`, `${command} logs orchestrator`);
}

/** Lists the tenant's sessions, newest first. */
export async function listSessions(
  context: SessionContext,
  options: { limit: string; cursor?: string },
): Promise<void> {
  const { gateway } = await signIn(context);
  const query = new URLSearchParams({ limit: options.limit, ...(options.cursor ? { cursor: options.cursor } : {}) });
  const page = await gateway.json(pageSchema, 'GET', `/v1/sessions?${query}`);
  const rows = page.sessions.map(({ id, status, createdAt, workflowId }) => [id, status, createdAt, workflowId]);
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

const cancelledSchema = z.looseObject({ cancelled: z.string().nullable() });

/** Cancels the turn that runs. */
export async function cancelTurn(context: SessionContext, id: string): Promise<void> {
  const { gateway } = await signIn(context);
  const result = await gateway.json(cancelledSchema, 'POST', path(id, '/cancel'));
  const text = result.cancelled === null ? 'no turn was running\n' : `cancelled turn ${result.cancelled}\n`;
  print(context, result, text);
}

/** Closes a session for good. */
export async function closeSession(context: SessionContext, id: string): Promise<void> {
  const { gateway } = await signIn(context);
  const session = await gateway.json(sessionSchema, 'DELETE', path(id));
  print(context, session, formatSession(session));
}
