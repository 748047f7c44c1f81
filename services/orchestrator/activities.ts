import { asTenant, messageOf } from '@somagent/kit';
import { type ChatChunk, isTooLong, type Spent } from '@somagent/models';
import { ApplicationFailure, Context } from '@temporalio/activity';
import {
  budgetFailure,
  type GenerateInput,
  type Generation,
  generationTries,
  haltedFailure,
  type ModelUse,
  type RememberInput,
  type Requester,
  type SessionActivities,
  type Usage,
} from './contract.ts';
import type { HaltSwitch, Run, StopReason } from './halt.ts';
import { type RememberParts, rememberTurn } from './memory.ts';
import { isPermanent, type Model, type ModelRequest, newerHalf, type StreamOptions } from './model.ts';
import type { RecalledBefore, SessionRecall } from './recall.ts';
import { startedEvents } from './session-events.ts';
import { type BegunTurn, type SessionStore, Superseded } from './session-store.ts';
import type { StepPolicy, StepVerdict } from './step-policy.ts';
import { TokenBatch } from './token-batch.ts';
import { BudgetExceeded, type TurnBudget } from './turn-budget.ts';

/** What the activities work with. */
export interface ActivityDependencies {
  readonly store: SessionStore;
  readonly model: Model;
  readonly budget: TurnBudget;
  readonly policy: StepPolicy;
  readonly halts: HaltSwitch;
  /** What is remembered from earlier conversations. */
  readonly recall: SessionRecall;
  /** Where turns are remembered; absent where there is no memory. */
  readonly memory?: RememberParts['client'];
  /** Answered turns that the model is shown. */
  readonly historyTurns: number;
}

/** How often a generation tells Temporal that it lives, and learns that it is cancelled, milliseconds. */
const heartbeatInterval = 250;

/** Whether a halted turn may go on is looked at this often, milliseconds; spread by chance over as much again. */
const haltedPause = 2000;

/** The activities of {@link SessionActivities}; every line that one of them logs names tenant and request. */
export function createActivities(dependencies: ActivityDependencies): SessionActivities {
  const { store } = dependencies;
  return {
    openSession: (input) => asTenant(input.tenant, () => store.open(input), requestOf(input)),
    generate: (input) => asTenant(input.tenant, () => generate(dependencies, input), requestOf(input)),
    interruptTurn: ({ turnId, ...key }) => asTenant(key.tenant, () => store.interrupt(key, turnId)),
    finishTurn: (input) => asTenant(input.tenant, () => store.finishTurn(input), requestOf(input)),
    closeSession: (input) => asTenant(input.tenant, () => store.close(input), requestOf(input)),
    rememberTurn: (input) => asTenant(input.tenant, () => remember(dependencies, input)),
  };
}

/** The request that an activity works for; a session that ends by itself has none. */
const requestOf = ({ by }: { readonly by?: Requester | undefined }): string | undefined => by?.requestId ?? undefined;

/** Asks policy, then has the turn remembered. While agent work is halted it comes again. */
async function remember(dependencies: ActivityDependencies, input: RememberInput): Promise<void> {
  const { store, policy, halts, memory } = dependencies;
  const { tenant, sessionId, subject, turnId } = input;
  const { verdict, event } = policy.decide({
    tenant,
    sessionId,
    subject,
    requestId: turnId,
    capability: 'memory:write',
  });
  const waits = policy.undecided || halts.reasonAgainst({ tenant, subject }) === 'halted';
  if (!verdict.allow && waits) throw comesAgain(verdict.reasons.join('; '));
  await store.record(tenant, [event]);
  if (!verdict.allow) throw refusedFor('PolicyDenied', verdict.reasons.join('; '));
  await rememberTurn({ store, ...(memory && { client: memory }) }, input);
}

async function generate(dependencies: ActivityDependencies, input: GenerateInput): Promise<Generation> {
  const worker = { tenant: input.tenant, subject: input.by?.actor.id ?? '' };
  const decided = await admit(dependencies, input, worker.subject);
  const run = dependencies.halts.begin(worker);
  try {
    return await attempt(dependencies, input, decided, run);
  } finally {
    run.end();
  }
}

/**
 * Asks policy. A turn that a halt keeps from going on, or that finds no policy, comes again: it holds no place in the
 * worker while it waits, so that the turns of other tenants run.
 */
async function admit(
  { store, policy, halts }: ActivityDependencies,
  input: GenerateInput,
  subject: string,
): Promise<StepVerdict> {
  const { tenant, sessionId, turn } = input;
  const requestId = input.by?.requestId ?? turn.turnId;
  const decided = policy.decide({ tenant, sessionId, subject, requestId, capability: 'model:generate' });
  const { verdict } = decided;
  const waits = !verdict.allow && (policy.undecided || halts.reasonAgainst({ tenant, subject }) === 'halted');
  const first = halts.noteWaiting(tenant, turn.turnId, waits);
  if (verdict.allow) return decided;
  // Once per wait, not at each look.
  if (!waits || first) await store.record(tenant, [decided.event]);
  throw waits ? comesAgain(verdict.reasons.join('; ')) : refusedFor('PolicyDenied', verdict.reasons.join('; '));
}

async function attempt(
  dependencies: ActivityDependencies,
  input: GenerateInput,
  decided: StepVerdict,
  run: Run,
): Promise<Generation> {
  const context = Context.current();
  const number = context.info.attempt;
  const startedAt = Date.now();
  const { store, recall, historyTurns } = dependencies;
  const mayRecall = recallDecided(dependencies, input);
  const events = [decided.event, ...mayRecall.events, ...startedEvents(input, input.turn, number, input.by)];
  const [begun, recalled] = await Promise.all([
    store.beginTurn(input, { turn: input.turn, number, historyTurns, events }),
    mayRecall.allowed ? recall.before(input, subjectOf(input)) : refusedRecall,
  ]);
  if (begun.turn.status !== 'running') return ended(startedAt);
  if (begun.tries > generationTries) throw refusedFor('GenerationFailed', `${generationTries} attempts have failed`);

  const stop = new AbortController();
  const batch = new TokenBatch(async (text) => {
    if (await store.appendText(input, input.turn.turnId, number, text)) stop.abort();
  });
  const alive = setInterval(() => context.heartbeat(), heartbeatInterval);
  try {
    const shown = recall.shown(recalled, begun.history);
    const request = {
      persona: input.persona,
      history: begun.history,
      prompt: input.turn.prompt,
      ...(shown !== undefined && { recalled: shown }),
    };
    const [generation, settled] = await budgeted(dependencies, input, request, (metered, costMicros) =>
      streamAnswer(metered, request, batch, { stop: stop.signal, run, costMicros }, startedAt),
    );
    // The last text is stored with the end of the turn: one wait for the replicas less.
    const noted = recalled.note.state === 'off' ? {} : { recall: recalled.note };
    const done = { ...generation, ...noted, tail: await batch.end() };
    const [told] = await Promise.all([stored(store, input, number, done), settled]);
    return told;
  } catch (error) {
    await batch.abandon();
    throw await failureOf(dependencies, input, begun, run, error);
  } finally {
    clearInterval(alive);
  }
}

const subjectOf = ({ by }: GenerateInput): string => by?.actor.id ?? '';

const refusedRecall: RecalledBefore = { memories: [], note: { state: 'refused', memories: 0, ms: 0 } };

/** Whether policy lets this turn be shown what is remembered, and the event that records it. */
function recallDecided({ policy, recall }: ActivityDependencies, input: GenerateInput) {
  if (!recall.isThere) return { allowed: true, events: [] };
  const { tenant, sessionId, turn, by } = input;
  const requestId = by?.requestId ?? turn.turnId;
  const subject = subjectOf(input);
  const { verdict, event } = policy.decide({ tenant, sessionId, subject, requestId, capability: 'memory:read' });
  return { allowed: verdict.allow, events: [event] };
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

/**
 * Stores the end of the turn at once: whoever follows the session has it before Temporal has heard of it. Should the
 * database be away, the workflow stores it, and does so for hours.
 */
async function stored(
  store: SessionStore,
  input: GenerateInput,
  attempt: number,
  generation: Generation,
): Promise<Generation> {
  const { tenant, sessionId, turn, by, team } = input;
  const told = { ...(by && { by }), ...(team !== undefined && { team }) };
  const end = { tenant, sessionId, turn, attempt, generation, status: generation.outcome, error: null, ...told };
  try {
    return { ...generation, stored: await store.finishTurn(end), answer: '', tail: '' };
  } catch (error) {
    if (error instanceof Superseded) throw error;
    return generation;
  }
}

/**
 * Runs a generation in its budgets: room for the most that it can use before, what it has used after.
 * @returns the generation, and the end of the reservation, which never fails
 */
async function budgeted(
  { model, budget }: ActivityDependencies,
  input: GenerateInput,
  request: ModelRequest,
  run: (metered: Meter, costMicros: number) => Promise<Generation>,
): Promise<[Generation, Promise<void>]> {
  const most = model.estimate(request);
  const reservation = await budget.reserve(input, Context.current().info.attempt, most);
  const metered = new Meter(model, input);
  try {
    const generation = await run(metered, most.costMicros);
    return [generation, reservation.end(metered.used)];
  } catch (error) {
    await reservation.end(metered.used);
    throw error;
  }
}

/** Asks the model, and adds up what it uses. */
class Meter {
  readonly #model: Model;
  readonly #requestId: string;
  readonly #tenant: string;
  #used: ModelUse | undefined;
  #queue: number | null = null;

  constructor(model: Model, { tenant, turn, by }: GenerateInput) {
    this.#model = model;
    this.#tenant = tenant;
    this.#requestId = by?.requestId ?? turn.turnId;
  }

  /** Undefined while no provider has begun to work. */
  get used(): ModelUse | undefined {
    return this.#used && { ...this.#used, queue: this.#queue };
  }

  async *stream(
    request: ModelRequest,
    options: Pick<StreamOptions, 'signal' | 'costMicros'>,
  ): AsyncGenerator<ChatChunk> {
    const onSpent = (spent: Spent) => this.#add(spent);
    const own = { requestId: this.#requestId, tenant: this.#tenant, onSpent };
    for await (const chunk of this.#model.stream(request, { ...options, ...own })) {
      this.#queue = chunk.timings?.queueMs ?? this.#queue;
      yield chunk;
    }
  }

  #add({ usage, costMicros, provider, reasons }: Spent): void {
    if (provider === null && costMicros === 0) return;
    const before = this.#used;
    this.#used = {
      promptTokens: usage.promptTokens + (before?.promptTokens ?? 0),
      completionTokens: usage.completionTokens + (before?.completionTokens ?? 0),
      costMicros: costMicros + (before?.costMicros ?? 0),
      modelName: this.#model.name,
      provider,
      queue: null,
      reasons: [...(before?.reasons ?? []), ...reasons],
    };
  }
}

interface AnswerOptions {
  readonly stop: AbortSignal;
  readonly run: Run;
  readonly costMicros: number;
}

async function streamAnswer(
  metered: Meter,
  request: ModelRequest,
  batch: TokenBatch,
  { stop, run, costMicros }: AnswerOptions,
  startedAt: number,
): Promise<Generation> {
  const signal = AbortSignal.any([Context.current().cancellationSignal, stop, run.signal]);
  const asked = performance.now();
  const since = () => Math.round((performance.now() - asked) * 10) / 10;
  let answer = '';
  let usage: Usage | null = null;
  let firstToken: number | null = null;
  const result = (outcome: Generation['outcome']): Generation => {
    const { used } = metered;
    const told = used === undefined ? {} : { used };
    return { outcome, answer, usage, startedAt, firstToken, model: since(), ...told };
  };
  try {
    for await (const chunk of streamFitting(metered, request, { signal, costMicros })) {
      usage = chunk.usage ?? usage;
      if (chunk.text === '') continue;
      firstToken ??= since();
      answer += chunk.text;
      batch.add(chunk.text);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  if (signal.aborted) return interrupted(stop.aborted, () => result('cancelled'));
  return result('completed');
}

/** Streams the answer to as much of the conversation as the model can read; the prompt itself is never cut. */
async function* streamFitting(
  metered: Meter,
  request: ModelRequest,
  options: Pick<StreamOptions, 'signal' | 'costMicros'>,
): AsyncGenerator<ChatChunk> {
  let shown = request;
  for (;;) {
    try {
      // A conversation that is too long is refused before the first token, so nothing is streamed twice.
      return yield* metered.stream(shown, options);
    } catch (error) {
      if (!isTooLong(error)) throw error;
      const { recalled, ...rest } = shown;
      if (shown.history.length > 0) shown = { ...shown, history: newerHalf(shown.history) };
      else if (recalled !== undefined) shown = rest;
      else throw error;
    }
  }
}

/** A cancelled turn keeps what it has; one that loses its worker runs again on another. */
function interrupted(stopped: boolean, cancelled: () => Generation): Generation {
  if (stopped || Context.current().cancellationDetails?.cancelRequested) return cancelled();
  throw ApplicationFailure.retryable('the worker is shutting down', 'WorkerShutdown');
}

/** What the failure of an attempt means for its turn. */
async function failureOf(
  { store, halts }: ActivityDependencies,
  input: GenerateInput,
  { tries }: BegunTurn,
  { signal }: Run,
  error: unknown,
): Promise<unknown> {
  if (error instanceof Superseded) return refusedFor('Superseded', error.message);
  if (error instanceof BudgetExceeded) return refusedFor(budgetFailure, `${budgetFailure}: ${error.message}`);
  if (signal.aborted) {
    const reason: StopReason = signal.reason;
    if (reason === 'suspended') return refusedFor('Suspended', 'its tenant or user is suspended');
    halts.noteWaiting(input.tenant, input.turn.turnId, true);
    await store.noteHalt(input, input.turn.turnId, Context.current().info.attempt);
    return comesAgain('agent work is halted');
  }
  if (isPermanent(error)) return refusedFor('ModelRefused', `the model refused: ${messageOf(error)}`);
  return tries >= generationTries ? refusedFor('GenerationFailed', messageOf(error)) : error;
}

const refusedFor = (type: string, message: string) => ApplicationFailure.nonRetryable(message, type);

/** The same activity is tried again after a pause, as often as it takes. */
const comesAgain = (message: string) =>
  ApplicationFailure.create({
    type: haltedFailure,
    message,
    nonRetryable: false,
    nextRetryDelay: Math.round(haltedPause * (1 + Math.random())),
  });
