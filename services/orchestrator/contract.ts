/**
 * What the gateway and the orchestrator agree on. Imported by workflow code too, so nothing here may touch the clock,
 * the network or a package.
 */

/** Type name of the session workflow. */
export const sessionWorkflow = 'session.start';

/** Workflow id of a session: the tenant is part of it, so no id of one tenant can name a session of another. */
export const workflowIdOf = (tenant: string, sessionId: string): string => `session/${tenant}/${sessionId}`;

/** The tenant of a session's workflow; undefined for an id that is none of ours. */
export const tenantOfWorkflow = (workflowId: string): string | undefined => /^session\/([^/]+)\//.exec(workflowId)?.[1];

/** Header of messages and activities with the trace that they belong to: `traceparent` and `baggage`, as JSON. */
export const traceHeader = 'soma-trace';

/** Names of the messages that a session workflow takes. */
export const messages = {
  open: 'open',
  turn: 'turn',
  cancelTurn: 'cancelTurn',
  close: 'close',
  state: 'state',
} as const;

/** Postgres channel on which every appended event is announced; the payload is an {@link EventNotice}. */
export const eventChannel = 'session_event';

/** Longest prompt, characters. */
export const promptLimit = 16_000;

/** Turns that may wait behind the running one before new ones are refused. */
export const queueLimit = 8;

export type SessionStatus = 'open' | 'closed';
/** Why a session ended: by its client, or because nothing happened for the idle timeout. */
export type CloseReason = 'client' | 'idle';
export type TurnStatus = 'running' | 'completed' | 'cancelled' | 'failed';

/** Who asked for something, and by which request: what events say about their origin. */
export interface Requester {
  readonly actor: {
    readonly kind: 'user' | 'service-account' | 'api-key' | 'workload' | 'system';
    readonly id: string;
    readonly client: string | null;
  };
  readonly requestId: string | null;
}

/** Argument of the session workflow. */
export interface SessionInput {
  readonly tenant: string;
  readonly sessionId: string;
  /** `sub` of the token that created the session. */
  readonly subject: string;
  /** Teams of that token: their members may see and use the session. @default none */
  readonly teams?: readonly string[];
  /** Who creates it. @default its subject */
  readonly by?: Requester;
  /** How the model is asked to behave: the system message. */
  readonly persona?: string;
  /** Time without a turn after which the session closes itself, milliseconds. */
  readonly idleTimeout: number;
  /** Events of workflow history after which the session continues as a new run. @default 2000 */
  readonly historyLimit?: number;
  /** State that a continued run takes over; absent in the first. */
  readonly carried?: CarriedState;
}

/** What survives continue-as-new. */
export interface CarriedState {
  readonly turns: number;
  /** Workflow time of the last turn, milliseconds since the epoch. */
  readonly lastActivity: number;
  /** Turns that are not remembered yet. @default none */
  readonly unremembered?: readonly RememberInput[];
}

/** Argument of the update `turn`. Its id is the update id, so a repeated request is the same turn. */
export interface TurnInput {
  readonly turnId: string;
  readonly prompt: string;
  /** When the gateway received the request, milliseconds since the epoch: start of all timings. */
  readonly receivedAt: number;
  /** Who asks. @default whoever created the session */
  readonly by?: Requester;
}

/** Tokens as the model counted them. */
export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Where the time of a turn went, milliseconds. */
export interface Timings {
  /** From the gateway's receipt until the generation began. */
  readonly queue: number;
  /** From the request to the model until its first token; null when there was none. */
  readonly firstToken: number | null;
  /** From the request to the model until its last token. */
  readonly model: number;
  /** From the gateway's receipt until the answer was stored, minus `model`: what the platform adds. */
  readonly platform: number;
  /** From the gateway's receipt until the answer was stored. */
  readonly total: number;
}

/** A turn as clients see it. */
export interface Turn {
  readonly id: string;
  /** 1 for the first of the session. */
  readonly number: number;
  readonly prompt: string;
  /** The whole answer; what had arrived so far when cancelled. */
  readonly answer: string;
  readonly status: TurnStatus;
  /** Why the turn failed. */
  readonly error: string | null;
  readonly usage: Usage | null;
  readonly timings: Timings | null;
}

/** Answer of the query `state`. */
export interface SessionState {
  readonly status: SessionStatus;
  readonly turns: number;
  /** Id of the turn that runs now. */
  readonly running: string | null;
  /** Turns that wait. */
  readonly queued: number;
}

/** Argument of the update `close`. */
export interface CloseInput {
  /** Who closes it. @default whoever created the session */
  readonly by?: Requester;
}

/** Argument of the update `cancelTurn`; without an id, the running turn is meant. */
export interface CancelInput {
  readonly turnId?: string;
}

/** Answer of the update `cancelTurn`: which turn it hit, null when there was nothing to cancel. */
export interface CancelResult {
  readonly cancelled: string | null;
}

/** Types of `session_event`, in the order of a session's life. */
export type EventType =
  | 'session.opened'
  | 'turn.started'
  | 'turn.restarted'
  | 'turn.token'
  | 'turn.completed'
  | 'turn.cancelled'
  | 'turn.failed'
  | 'session.closed';

/** Types after which no event of a turn follows. */
export const turnEnds: readonly EventType[] = ['turn.completed', 'turn.cancelled', 'turn.failed'];

/** Payload of {@link eventChannel}: `<tenant>/<session id>/<last seq>`. */
export interface EventNotice {
  readonly tenant: string;
  readonly sessionId: string;
  readonly seq: number;
}

/** Reads the payload of a notification; undefined when it has another shape. */
export function parseNotice(payload: string): EventNotice | undefined {
  const match = /^([^/]+)\/([^/]+)\/(\d+)$/.exec(payload);
  const [, tenant, sessionId, seq] = match ?? [];
  if (tenant === undefined || sessionId === undefined || seq === undefined) return undefined;
  return { tenant, sessionId, seq: Number(seq) };
}

/** A turn that has ended. */
export interface TurnKey {
  readonly tenant: string;
  readonly sessionId: string;
  readonly turnId: string;
}

/** Payload on {@link eventChannel} beside the {@link EventNotice}: the end of a turn is stored. */
export const endNoticeOf = ({ tenant, sessionId, turnId }: TurnKey): string => `ended/${tenant}/${sessionId}/${turnId}`;

/** Reads {@link endNoticeOf}; undefined when the payload has another shape. */
export function parseEndNotice(payload: string): TurnKey | undefined {
  const [, tenant, sessionId, turnId] = /^ended\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(payload) ?? [];
  if (tenant === undefined || sessionId === undefined || turnId === undefined) return undefined;
  return { tenant, sessionId, turnId };
}

/** Type of the failure of a generation that a budget has no room for. */
export const budgetFailure = 'BudgetExceeded';

/** Type of the failure of a generation that the kill switch stopped: it goes on when the halt is undone. */
export const haltedFailure = 'Halted';

/** Attempts at a generation that may fail before its turn does; those that a halt stopped do not count. */
export const generationTries = 5;

/** Types of the failures that an update can be refused with. */
export const refusals = { closed: 'SessionClosed', busy: 'TooManyTurns', invalid: 'InvalidTurn' } as const;

/** What the model of a turn used, as far as it is known: also of one that was cancelled. */
export interface ModelUse extends Usage {
  /** Of every attempt, whole millionths of a US dollar. */
  readonly costMicros: number;
  /** Public name of the model. */
  readonly modelName: string;
  /** Who answered; null when nobody had begun to. */
  readonly provider: string | null;
  /** In the queue of the model's server, milliseconds; null where it doesn't tell. */
  readonly queue: number | null;
  /** Why another provider than the first answered. */
  readonly reasons: readonly string[];
}

/** What the generation activity takes. */
export interface GenerateInput {
  readonly tenant: string;
  readonly sessionId: string;
  readonly turn: TurnInput;
  readonly persona?: string;
  /** Who asked. @default the system: scheduled by an older version */
  readonly by?: Requester;
  /** Whose budget it is, beside tenant, client and session. @default nobody's */
  readonly team?: string;
}

/** What was recalled before a turn. */
export interface RecallNote {
  /**
   * `degraded`: by words only; `away`: the memory gateway did not answer in time; `refused`: by policy; `off`: there is
   * no memory.
   */
  readonly state: 'recalled' | 'degraded' | 'away' | 'refused' | 'off';
  /** How many memories the model could be shown. */
  readonly memories: number;
  /** Milliseconds. */
  readonly ms: number;
}

/** How a generation ended. */
export interface Generation {
  /** @default there is no memory: ended by an older version */
  readonly recall?: RecallNote;
  readonly outcome: 'completed' | 'cancelled';
  readonly answer: string;
  /** The end of `answer` that is not stored as an event yet. @default '' */
  readonly tail?: string;
  readonly usage: Usage | null;
  /** When the generation began, milliseconds since the epoch. */
  readonly startedAt: number;
  readonly firstToken: number | null;
  readonly model: number;
  /** What the model used. @default the tokens of `usage` */
  readonly used?: ModelUse;
  /**
   * The turn as the generation has stored its end; `answer` and `tail` are empty then. Absent when the database was away,
   * and from an older version: the workflow stores it.
   */
  readonly stored?: Turn;
}

/** What the end of a turn is stored from. */
export interface FinishInput {
  readonly tenant: string;
  readonly sessionId: string;
  readonly turn: TurnInput;
  readonly generation: Generation | null;
  readonly status: Exclude<TurnStatus, 'running'>;
  readonly error: string | null;
  /** Who asked. @default the system: scheduled by an older version */
  readonly by?: Requester;
  /** Type of the failure. @default not known: scheduled by an older version */
  readonly failure?: string;
  /** See {@link GenerateInput.team}. */
  readonly team?: string;
  /** The attempt that it is the end of: nothing is stored when a newer one has begun. @default whichever was the newest */
  readonly attempt?: number;
}

/** What the end of a session is stored from. */
export interface EndInput {
  readonly tenant: string;
  readonly sessionId: string;
  readonly reason: CloseReason;
  /** Who closed it. @default the system */
  readonly by?: Requester;
}

/** Which generation shall stop. */
export interface InterruptInput {
  readonly tenant: string;
  readonly sessionId: string;
  readonly turnId: string;
}

/** Which turn shall be remembered, for whom. */
export interface RememberInput {
  readonly tenant: string;
  readonly sessionId: string;
  readonly turnId: string;
  /** Who asked it. */
  readonly subject: string;
  readonly persona?: string;
}

/** Activities of a session; see activities.ts. */
export interface SessionActivities {
  openSession(input: SessionInput): Promise<void>;
  generate(input: GenerateInput): Promise<Generation>;
  interruptTurn(input: InterruptInput): Promise<void>;
  finishTurn(input: FinishInput): Promise<Turn>;
  closeSession(input: EndInput): Promise<void>;
  rememberTurn(input: RememberInput): Promise<void>;
}
