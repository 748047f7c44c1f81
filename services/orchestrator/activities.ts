import { messageOf } from '@somagent/kit';
import { ApplicationFailure, Context } from '@temporalio/activity';
import type { GenerateInput, Generation, SessionActivities, Usage } from './contract.ts';
import { isPermanent, isTooLong, type Model, type ModelChunk, type ModelRequest, newerHalf } from './model.ts';
import { type SessionStore, Superseded } from './session-store.ts';
import { TokenBatch } from './token-batch.ts';

/** What the activities work with. */
export interface ActivityDependencies {
  readonly store: SessionStore;
  readonly model: Model;
  /** Answered turns that the model is shown. */
  readonly historyTurns: number;
}

/** How often a generation tells Temporal that it lives, and learns that it is cancelled, milliseconds. */
const heartbeatInterval = 250;

/** The activities of {@link SessionActivities}. */
export function createActivities(dependencies: ActivityDependencies): SessionActivities {
  const { store } = dependencies;
  return {
    openSession: (input) => store.open(input),
    generate: (input) => generate(dependencies, input),
    interruptTurn: ({ turnId, ...key }) => store.interrupt(key, turnId),
    finishTurn: (input) => store.finishTurn(input),
    closeSession: ({ reason, ...key }) => store.close(key, reason),
  };
}

async function generate(dependencies: ActivityDependencies, input: GenerateInput): Promise<Generation> {
  const context = Context.current();
  const { turnId } = input.turn;
  const { attempt } = context.info;
  const startedAt = Date.now();
  const { turn, history } = await dependencies.store.beginTurn(input, input.turn, attempt, dependencies.historyTurns);
  if (turn.status !== 'running') return ended(startedAt);

  const stop = new AbortController();
  const batch = new TokenBatch(async (text) => {
    if (await dependencies.store.appendText(input, turnId, attempt, text)) stop.abort();
  });
  const alive = setInterval(() => context.heartbeat(), heartbeatInterval);
  try {
    const request = { persona: input.persona, history, prompt: input.turn.prompt };
    const generation = await streamAnswer(dependencies.model, request, batch, stop.signal, startedAt);
    // The last text is stored with the end of the turn: one wait for the replicas less.
    return { ...generation, tail: await batch.end() };
  } catch (error) {
    await batch.abandon();
    throw failureOf(error);
  } finally {
    clearInterval(alive);
  }
}

/** The turn ended in an earlier life of this activity; storing its end again changes nothing. */
const ended = (startedAt: number): Generation => ({
  outcome: 'completed',
  answer: '',
  usage: null,
  startedAt,
  firstToken: null,
  model: 0,
});

async function streamAnswer(
  model: Model,
  request: ModelRequest,
  batch: TokenBatch,
  stop: AbortSignal,
  startedAt: number,
): Promise<Generation> {
  const signal = AbortSignal.any([Context.current().cancellationSignal, stop]);
  const asked = performance.now();
  const since = () => Math.round((performance.now() - asked) * 10) / 10;
  let answer = '';
  let usage: Usage | null = null;
  let firstToken: number | null = null;
  const result = (outcome: Generation['outcome']): Generation => ({
    outcome,
    answer,
    usage,
    startedAt,
    firstToken,
    model: since(),
  });
  try {
    for await (const chunk of streamFitting(model, request, signal)) {
      usage = chunk.usage ?? usage;
      if (chunk.text === '') continue;
      firstToken ??= since();
      answer += chunk.text;
      batch.add(chunk.text);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  // The client of the model ends the stream without an error when it is aborted.
  if (signal.aborted) return interrupted(stop.aborted, () => result('cancelled'));
  return result('completed');
}

/** Streams the answer to as much of the conversation as the model can read; the prompt itself is never cut. */
async function* streamFitting(model: Model, request: ModelRequest, signal: AbortSignal): AsyncGenerator<ModelChunk> {
  let history = request.history;
  for (;;) {
    try {
      // A conversation that is too long is refused before the first token, so nothing is streamed twice.
      return yield* model.stream({ ...request, history }, signal);
    } catch (error) {
      if (!isTooLong(error) || history.length === 0) throw error;
      history = newerHalf(history);
    }
  }
}

/** A cancelled turn keeps what it has; one that loses its worker runs again on another. */
function interrupted(stopped: boolean, cancelled: () => Generation): Generation {
  if (stopped || Context.current().cancellationDetails?.cancelRequested) return cancelled();
  throw ApplicationFailure.retryable('the worker is shutting down', 'WorkerShutdown');
}

function failureOf(error: unknown): unknown {
  if (error instanceof ApplicationFailure) return error;
  if (error instanceof Superseded) return ApplicationFailure.nonRetryable(error.message, 'Superseded');
  if (isPermanent(error))
    return ApplicationFailure.nonRetryable(`the model refused: ${messageOf(error)}`, 'ModelRefused');
  return error;
}
