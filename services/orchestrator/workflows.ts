import {
  ActivityCancellationType,
  ActivityFailure,
  ApplicationFailure,
  allHandlersFinished,
  CancellationScope,
  condition,
  continueAsNew,
  defineQuery,
  defineUpdate,
  isCancellation,
  proxyActivities,
  proxyLocalActivities,
  rootCause,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import {
  type CancelInput,
  type CancelResult,
  type CarriedState,
  type CloseInput,
  type CloseReason,
  type Generation,
  messages,
  promptLimit,
  queueLimit,
  type RememberInput,
  type Requester,
  refusals,
  type SessionActivities,
  type SessionInput,
  type SessionState,
  type Turn,
  type TurnInput,
} from './contract.ts';

const { generate } = proxyActivities<SessionActivities>({
  startToCloseTimeout: '2 minutes',
  // As long as a halt may last.
  scheduleToCloseTimeout: '30 days',
  heartbeatTimeout: '5 seconds',
  // The partial answer of a cancelled generation is worth the wait.
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  // Attempts that fail are counted by the activity itself: those that a halt stopped do not count.
  retry: { initialInterval: '200ms', backoffCoefficient: 2, maximumInterval: '5s' },
});

/** Short writes run inside the workflow task: no round trip through the task queue. */
const quick = proxyLocalActivities<SessionActivities>({
  startToCloseTimeout: '3 seconds',
  retry: { initialInterval: '100ms', maximumAttempts: 3 },
});

/** The same writes when the database stays away: for as long as a failover or a repair may take. */
const patient = proxyActivities<SessionActivities>({
  startToCloseTimeout: '15 seconds',
  scheduleToCloseTimeout: '1 hour',
  retry: { initialInterval: '500ms', backoffCoefficient: 2, maximumInterval: '10s' },
});

/** Remembering waits for the memory gateway as long as it takes; nobody waits for it. */
const { rememberTurn } = proxyActivities<SessionActivities>({
  startToCloseTimeout: '15 seconds',
  scheduleToCloseTimeout: '7 days',
  retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '5 minutes' },
});

const openUpdate = defineUpdate<void, []>(messages.open);
const turnUpdate = defineUpdate<Turn, [TurnInput]>(messages.turn);
const cancelUpdate = defineUpdate<CancelResult, [CancelInput]>(messages.cancelTurn);
const closeUpdate = defineUpdate<void, [CloseInput?]>(messages.close);
const stateQuery = defineQuery<SessionState>(messages.state);

const defaultHistoryLimit = 2000;

/** Runs a write locally, then, when that fails, as an activity of its own with hours of patience. */
async function store<Result>(write: (activities: typeof quick) => Promise<Result>): Promise<Result> {
  // A cancelled turn must still be stored.
  return CancellationScope.nonCancellable(async () => {
    try {
      return await write(quick);
    } catch {
      return await write(patient);
    }
  });
}

/** One session: takes turns in order, one at a time, until it is closed or idle for too long. */
class Session {
  readonly #input: SessionInput;
  readonly #historyLimit: number;
  #turns: number;
  #lastActivity: number;
  #opened: boolean;
  #closing: CloseReason | undefined;
  #closedBy: Requester | undefined;
  #closed = false;
  #waiting = 0;
  #running: { readonly turnId: string; readonly scope: CancellationScope } | undefined;
  readonly #cancelledWhileWaiting = new Set<string>();
  readonly #waitingIds = new Set<string>();
  /** Turns that are not remembered yet, by id. */
  readonly #unremembered = new Map<string, RememberInput>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(input: SessionInput) {
    this.#input = input;
    this.#historyLimit = input.historyLimit ?? defaultHistoryLimit;
    this.#turns = input.carried?.turns ?? 0;
    this.#lastActivity = input.carried?.lastActivity ?? Date.now();
    this.#opened = input.carried !== undefined;
    for (const turn of input.carried?.unremembered ?? []) this.#remember(turn);
  }

  /** Registers the handlers; synchronous, so that no message of the first task is missed. */
  listen(): void {
    setHandler(stateQuery, () => this.#state());
    setHandler(openUpdate, () => condition(() => this.#opened));
    setHandler(turnUpdate, (turn) => this.#enqueue(turn), { validator: (turn) => this.#validate(turn) });
    setHandler(cancelUpdate, (input) => this.#cancel(input));
    setHandler(closeUpdate, (input) => this.#close(input?.by));
  }

  async run(): Promise<CloseReason> {
    await this.#open();
    const reason = await this.#live();
    this.#closing = reason;
    this.#running?.scope.cancel();
    await condition(() => this.#waiting === 0);
    const { tenant, sessionId } = this.#input;
    const by = this.#closedBy ?? this.#creator();
    await store((activities) => activities.closeSession({ tenant, sessionId, reason, by }));
    this.#closed = true;
    await condition(allHandlersFinished);
    await condition(() => this.#unremembered.size === 0);
    return reason;
  }

  async #open(): Promise<void> {
    if (this.#opened) return;
    await store((activities) => activities.openSession(this.#input));
    this.#opened = true;
  }

  /** Waits for the end of the session; continues as a new run when the history grows long. */
  async #live(): Promise<CloseReason> {
    const { idleTimeout } = this.#input;
    let wait = idleTimeout - (Date.now() - this.#lastActivity);
    for (;;) {
      const woken = wait > 0 && (await condition(() => this.#closing !== undefined || this.#historyIsLong(), wait));
      if (this.#closing !== undefined) return this.#closing;
      if (woken) {
        // Every accepted update gets its answer from this run; ones not yet accepted go to the next by themselves.
        await condition(() => allHandlersFinished() || this.#closing !== undefined);
        if (this.#closing !== undefined) return this.#closing;
        await continueAsNew<(input: SessionInput) => Promise<CloseReason>>({ ...this.#input, carried: this.#carry() });
      }
      const idle = Date.now() - this.#lastActivity;
      if (this.#waiting === 0 && idle >= idleTimeout) return 'idle';
      wait = this.#waiting > 0 ? idleTimeout : idleTimeout - idle;
    }
  }

  /** Whoever created the session asks, where a message does not say who does. */
  #creator(): Requester {
    const { by, subject } = this.#input;
    return by ?? { actor: { kind: 'service-account', id: subject, client: null }, requestId: null };
  }

  #historyIsLong(): boolean {
    const { continueAsNewSuggested, historyLength } = workflowInfo();
    return continueAsNewSuggested || historyLength >= this.#historyLimit;
  }

  #carry(): CarriedState {
    const unremembered = [...this.#unremembered.values()];
    const common = { turns: this.#turns, lastActivity: this.#lastActivity };
    return unremembered.length === 0 ? common : { ...common, unremembered };
  }

  #state(): SessionState {
    return {
      status: this.#closing === undefined ? 'open' : 'closed',
      turns: this.#turns,
      running: this.#running?.turnId ?? null,
      queued: this.#waitingIds.size,
    };
  }

  #validate(turn: TurnInput): void {
    const refuse = (type: string, message: string) => ApplicationFailure.nonRetryable(message, type);
    if (this.#closing !== undefined) throw refuse(refusals.closed, 'the session is closed: start a new one');
    if (this.#waiting > queueLimit) {
      throw refuse(refusals.busy, `${queueLimit} turns already wait in this session: send the next when one has ended`);
    }
    if (turn.prompt.length === 0 || turn.prompt.length > promptLimit) {
      throw refuse(refusals.invalid, `prompt has ${turn.prompt.length} characters: allowed are 1 to ${promptLimit}`);
    }
  }

  async #enqueue(turn: TurnInput): Promise<Turn> {
    this.#waiting += 1;
    this.#waitingIds.add(turn.turnId);
    this.#lastActivity = Date.now();
    const mine = this.#tail.then(() => this.#take(turn));
    this.#tail = mine.catch(() => undefined);
    try {
      return await mine;
    } finally {
      this.#waiting -= 1;
      this.#lastActivity = Date.now();
    }
  }

  async #take(turn: TurnInput): Promise<Turn> {
    await condition(() => this.#opened);
    this.#waitingIds.delete(turn.turnId);
    const { tenant, sessionId } = this.#input;
    const end = await this.#generate(turn);
    const by = turn.by ?? this.#creator();
    // The generation has stored it, unless the database was away; one of an older version never does.
    const stored =
      end.generation?.stored ??
      (await store((activities) => activities.finishTurn({ tenant, sessionId, turn, by, ...end, ...this.#team() })));
    this.#turns = Math.max(this.#turns, stored.number);
    this.#rememberLater(turn.turnId, by, end);
    return stored;
  }

  /**
   * Schedules that a turn is remembered, where there is a memory. That the generation says so is in the history: one of
   * an older version does not say it, so its replay schedules nothing.
   */
  #rememberLater(turnId: string, by: Requester, { status, generation }: TurnEnd): void {
    const state = generation?.recall?.state ?? 'off';
    if (status !== 'completed' || state === 'off' || state === 'refused') return;
    const { tenant, sessionId, persona } = this.#input;
    const common = { tenant, sessionId, turnId, subject: by.actor.id };
    this.#remember(persona === undefined ? common : { ...common, persona });
  }

  #remember(turn: RememberInput): void {
    this.#unremembered.set(turn.turnId, turn);
    const done = () => void this.#unremembered.delete(turn.turnId);
    // Refused for good, or for a week: the turn itself is stored, only memory lacks it.
    CancellationScope.nonCancellable(() => rememberTurn(turn)).then(done, done);
  }

  async #generate(turn: TurnInput): Promise<TurnEnd> {
    if (this.#cancelledWhileWaiting.delete(turn.turnId) || this.#closing !== undefined) return cancelledUnheard;
    const { tenant, sessionId, persona } = this.#input;
    const scope = new CancellationScope({ cancellable: true });
    this.#running = { turnId: turn.turnId, scope };
    try {
      const by = turn.by ?? this.#creator();
      const input = { tenant, sessionId, turn, by, ...(persona === undefined ? {} : { persona }), ...this.#team() };
      const generation = await scope.run(() => generate(input));
      return { generation, status: generation.outcome, error: null };
    } catch (error) {
      if (isCancellation(error) || scope.consideredCancelled) return cancelledUnheard;
      return { generation: null, status: 'failed', error: rootCause(error) ?? String(error), ...failureOf(error) };
    } finally {
      this.#running = undefined;
    }
  }

  /** Whose budget its work is: the first team of whoever created the session, as at the gateway. */
  #team(): { readonly team?: string } {
    const [team] = (this.#input.teams ?? []).toSorted();
    return team === undefined ? {} : { team };
  }

  async #cancel({ turnId }: CancelInput): Promise<CancelResult> {
    if (turnId !== undefined && this.#waitingIds.has(turnId)) {
      this.#cancelledWhileWaiting.add(turnId);
      return { cancelled: turnId };
    }
    const running = this.#running;
    if (running === undefined || (turnId !== undefined && turnId !== running.turnId)) return { cancelled: null };
    await this.#interrupt();
    return { cancelled: running.turnId };
  }

  /**
   * Stops the running generation. The cancellation of the activity is certain, but reaches it only with a heartbeat;
   * the mark in the database reaches it with the next tokens.
   */
  async #interrupt(): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    running.scope.cancel();
    const { tenant, sessionId } = this.#input;
    await quick.interruptTurn({ tenant, sessionId, turnId: running.turnId }).catch(() => undefined);
  }

  async #close(by: Requester | undefined): Promise<void> {
    this.#closing ??= 'client';
    this.#closedBy ??= by;
    await this.#interrupt();
    await condition(() => this.#closed);
  }
}

interface TurnEnd {
  readonly generation: Generation | null;
  readonly status: 'completed' | 'cancelled' | 'failed';
  readonly error: string | null;
  readonly failure?: string;
}

/** The type that the activity gave its failure. */
function failureOf(error: unknown): Pick<TurnEnd, 'failure'> {
  const type = error instanceof ActivityFailure && error.cause instanceof ApplicationFailure ? error.cause.type : null;
  return type == null ? {} : { failure: type };
}

/** A turn cancelled before a word of it was generated. */
const cancelledUnheard: TurnEnd = { generation: null, status: 'cancelled', error: null };

/** The entity workflow of one session. Resolves with the reason of its end. */
async function sessionStart(input: SessionInput): Promise<CloseReason> {
  const session = new Session(input);
  session.listen();
  return session.run();
}

// The name on the wire is part of the platform's contract and is not an identifier.
export { sessionStart as 'session.start' };
