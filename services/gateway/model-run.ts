import { type FollowedControlState, followWork, Problem, WorkEnded } from '@somagent/governance';
import {
  type ChatChunk,
  type ChatRequest,
  type Estimate,
  isLast,
  type LastChunk,
  ModelError,
  type Models,
} from '@somagent/models';
import {
  budgetExceeded,
  clientGone,
  contextTooLong,
  modelBusy,
  modelFailed,
  modelTimeout,
  modelUnknown,
} from './openai-problems.ts';
import type { Ending, Spending, Spent, Work } from './spending.ts';

/** What requests of models work with. */
export interface ModelRuns {
  readonly models: Models;
  readonly spending: Spending;
  /** Tells when the tenant is halted or the caller suspended: then what runs ends. */
  readonly control: FollowedControlState;
  /** Longest time of a request, milliseconds. */
  readonly deadlineMs: number;
}

/** A request that has been admitted, as {@link Spending} counts it. */
export interface Admitted extends Omit<Work, 'most'> {
  /** Of the monotonic clock, milliseconds: when the gateway had the request. */
  readonly startedAt: number;
}

/** Runs with what ends it: its caller's leaving, a halt, a suspension, a budget after all. Always released. */
async function* governed<Item>(
  { control }: ModelRuns,
  { caller }: Admitted,
  { refused }: Spent,
  gone: AbortSignal,
  run: (signal: AbortSignal) => AsyncIterable<Item>,
): AsyncGenerator<Item> {
  const work = followWork(control, caller);
  const signal = AbortSignal.any(refused === undefined ? [gone, work.signal] : [gone, work.signal, refused]);
  try {
    signal.throwIfAborted();
    yield* run(signal);
  } catch (error) {
    throw refused?.aborted ? refused.reason : problemOfRun(error, signal);
  } finally {
    work.release();
  }
}

/**
 * Streams an answer whose use is reserved before, and settled in the background after. Leaving early or aborting cancels
 * the model.
 * @throws Problem
 */
export async function* answer(
  runs: ModelRuns,
  admitted: Admitted,
  request: ChatRequest,
  gone: AbortSignal,
): AsyncGenerator<ChatChunk> {
  const most = estimate(runs.models, request);
  const spent = await runs.spending.begin({ ...admitted, most });
  const tally = new Tally(admitted, request, most);
  yield* governed(runs, admitted, spent, gone, (signal) => counted(runs, admitted, request, signal, spent, tally));
}

async function* counted(
  { models, deadlineMs }: ModelRuns,
  { requestId }: Admitted,
  request: ChatRequest,
  signal: AbortSignal,
  spent: Spent,
  tally: Tally,
): AsyncGenerator<ChatChunk> {
  const budget = { costMicros: tally.most.costMicros };
  let ended = false;
  let isGranted = spent.granted === undefined;
  const end = (outcome: Ending['outcome'], error?: unknown) => {
    ended = true;
    spent.end(tally.ending(outcome, error));
  };
  try {
    for await (const chunk of models.complete(request, { signal, deadlineMs, budget, requestId })) {
      tally.add(chunk);
      if (isLast(chunk)) end('completed');
      if (!isGranted) await spent.granted;
      isGranted = true;
      yield chunk;
    }
    if (!ended) throw new ModelError('broken_off', 'the answer ended without its last chunk');
  } catch (error) {
    if (!ended) end(signal.aborted ? 'cancelled' : 'failed', error);
    throw error;
  } finally {
    // Whoever read it has left.
    if (!ended) end('cancelled');
  }
}

/** Embeds texts, reserved and settled like an answer. @throws Problem */
export async function embed(
  runs: ModelRuns,
  admitted: Admitted,
  input: readonly string[],
  gone: AbortSignal,
): Promise<{ readonly vectors: readonly (readonly number[])[]; readonly promptTokens: number }> {
  const request = { model: admitted.model, input };
  const most = estimate(runs.models, request);
  const spent = await runs.spending.begin({ ...admitted, most });
  const { models, deadlineMs } = runs;
  const { requestId, startedAt } = admitted;
  const asked = performance.now();
  const ending = (outcome: Ending['outcome'], promptTokens: number, costMicros: number, provider: string | null) => ({
    ...{ outcome, promptTokens, costMicros, provider, completionTokens: 0, reasons: [], queue: null, firstToken: null },
    ...{ model: performance.now() - asked, total: performance.now() - startedAt },
  });
  const run = async function* (signal: AbortSignal) {
    const options = { signal, deadlineMs, requestId, budget: { costMicros: most.costMicros } };
    const { vectors, usage, costMicros, provider } = await models.embed(request, options).catch((error) => {
      const cost = error instanceof ModelError ? error.costMicros : 0;
      spent.end(ending(signal.aborted ? 'cancelled' : 'failed', 0, cost, null));
      throw error;
    });
    spent.end(ending('completed', usage.promptTokens, costMicros ?? most.costMicros, provider));
    await spent.granted;
    yield { vectors, promptTokens: usage.promptTokens };
  };
  for await (const result of governed(runs, admitted, spent, gone, run)) return result;
  throw new Error('no answer came from an embedding');
}

function estimate(models: Models, request: Parameters<Models['estimate']>[0]): Estimate {
  try {
    return models.estimate(request);
  } catch (error) {
    throw problemOfModel(error);
  }
}

/** Counts what an answer has used, also where the model did not come to tell it. */
class Tally {
  readonly most: Estimate;
  readonly #admitted: Admitted;
  readonly #promptBytes: number;
  readonly #startedAt = performance.now();
  #pieces = 0;
  #bytes = 0;
  #firstAt: number | null = null;
  #seen: ChatChunk | undefined;
  #last: LastChunk | undefined;
  #usage: ChatChunk['usage'];

  constructor(admitted: Admitted, { messages, tools, response_format }: ChatRequest, most: Estimate) {
    this.#admitted = admitted;
    this.most = most;
    this.#promptBytes = Buffer.byteLength(JSON.stringify([messages, tools, response_format]));
  }

  add(chunk: ChatChunk): void {
    const size =
      chunk.text.length + (chunk.toolCalls ?? []).reduce((sum, { arguments: text = '' }) => sum + text.length, 0);
    if (size > 0) {
      this.#firstAt ??= performance.now();
      this.#pieces += 1;
      this.#bytes += size;
    }
    this.#seen = chunk;
    this.#usage = chunk.usage ?? this.#usage;
    if (isLast(chunk)) this.#last = chunk;
  }

  ending(outcome: Ending['outcome'], error?: unknown): Ending {
    const now = performance.now();
    const { timings, reasons } = this.#last ?? {};
    const failure = error instanceof ModelError ? error : undefined;
    return {
      outcome,
      ...this.#counted(outcome, failure),
      provider: this.#seen?.provider ?? failure?.provider ?? null,
      reasons: reasons ?? failure?.reasons ?? [],
      queue: timings?.queueMs ?? null,
      firstToken: timings?.firstTokenMs ?? (this.#firstAt === null ? null : this.#firstAt - this.#startedAt),
      model: timings?.totalMs ?? now - this.#startedAt,
      total: now - this.#admitted.startedAt,
    };
  }

  #counted(outcome: Ending['outcome'], failure: ModelError | undefined) {
    // Before its first piece a provider that fails has used nothing that it would charge.
    if (outcome === 'failed' && this.#seen === undefined) {
      return { promptTokens: 0, completionTokens: 0, costMicros: failure?.costMicros ?? 0 };
    }
    const { promptTokens, completionTokens } = this.#usage ?? this.#guessed();
    const share = Math.min(1, (promptTokens + completionTokens) / Math.max(1, this.most.tokens));
    const costMicros = this.#last?.costMicros ?? Math.ceil(this.most.costMicros * share);
    return { promptTokens, completionTokens, costMicros };
  }

  /** Of an answer that was cut off: four bytes are about a token, and no piece is less than one. */
  #guessed() {
    const promptTokens = Math.min(this.most.tokens, Math.ceil(this.#promptBytes / 4));
    const completionTokens = Math.max(this.#pieces, Math.ceil(this.#bytes / 4));
    return { promptTokens, completionTokens: Math.min(this.most.tokens - promptTokens, completionTokens) };
  }
}

function problemOfRun(error: unknown, signal: AbortSignal): unknown {
  const reason: unknown = signal.aborted ? signal.reason : undefined;
  if (reason instanceof WorkEnded) return new Problem(reason.why, reason.message);
  if (signal.aborted) return new Problem(clientGone, 'the client has left');
  return problemOfModel(error);
}

/** How the failure of a model is shown. */
function problemOfModel(error: unknown): unknown {
  if (!(error instanceof ModelError)) return error;
  const { code, message, retryAfterMs } = error;
  const wait = retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
  const headers = { 'retry-after': String(wait ?? 2) };
  switch (code) {
    case 'unknown_model':
      return new Problem(modelUnknown, message, {}, 'model');
    case 'invalid_request':
    case 'unsupported':
      return new Problem('invalid-request', message);
    case 'context_length_exceeded':
      return new Problem(contextTooLong, message, {}, 'messages');
    case 'budget_exceeded':
      return new Problem(budgetExceeded, message);
    case 'rate_limited':
      return new Problem(modelBusy, message, headers);
    case 'timeout':
    case 'deadline_exceeded':
      return new Problem(modelTimeout, message);
    case 'overloaded':
    case 'unavailable':
    case 'circuit_open':
    case 'exhausted':
      return wait === undefined
        ? new Problem('unavailable', message, headers)
        : new Problem(modelBusy, message, headers);
    default:
      return new Problem(modelFailed, message);
  }
}
