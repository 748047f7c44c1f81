import { Problem } from '@somagent/governance';
import {
  type CancelResult,
  type CloseInput,
  messages,
  type Requester,
  refusals,
  type SessionInput,
  sessionWorkflow,
  type Turn,
  type TurnInput,
  workflowIdOf,
} from '@somagent/orchestrator/contract.ts';
import {
  ApplicationFailure,
  type Client,
  isGrpcServiceError,
  ServiceError,
  WithStartWorkflowOperation,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  type WorkflowUpdateHandle,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { tooManyTurns } from './problems.ts';

/** A session workflow, as the gateway addresses it. */
export interface SessionAddress {
  readonly tenant: string;
  readonly sessionId: string;
}

/** What starts a session. */
export type NewSession = Omit<SessionInput, 'carried' | 'idleTimeout'>;

/** The workflow has ended: its end is in the database. */
export class SessionEnded extends Error {}

/** Options of {@link Sessions}. */
export interface SessionsOptions {
  readonly taskQueue: string;
  /** Milliseconds. */
  readonly idleTimeout: number;
}

/** Messages to session workflows. */
export class Sessions {
  readonly #client: Client;
  readonly #options: SessionsOptions;

  constructor(client: Client, options: SessionsOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** Starts a session; resolves when it is stored. */
  async open(session: NewSession): Promise<void> {
    const { workflow } = this.#client;
    await translate(() =>
      workflow.executeUpdateWithStart<SessionWorkflow, void, []>(messages.open, {
        updateId: 'open',
        startWorkflowOperation: this.#starting(session),
      }),
    );
  }

  /** Starts a session together with its first turn, in one request; resolves with the ended turn. */
  async openWithTurn(session: NewSession, turn: TurnInput): Promise<Turn> {
    const { workflow } = this.#client;
    return translate(() =>
      workflow.executeUpdateWithStart<SessionWorkflow, Turn, [TurnInput]>(messages.turn, {
        updateId: turn.turnId,
        args: [turn],
        startWorkflowOperation: this.#starting(session),
      }),
    );
  }

  /** Hands a turn over; resolves when the session has accepted it. */
  async startTurn(address: SessionAddress, turn: TurnInput): Promise<WorkflowUpdateHandle<Turn>> {
    return translate(() =>
      this.#handle(address).startUpdate<Turn, [TurnInput]>(messages.turn, {
        updateId: turn.turnId,
        args: [turn],
        waitForStage: 'ACCEPTED',
      }),
    );
  }

  /** Hands a turn over; resolves with the ended turn. */
  async turn(address: SessionAddress, turn: TurnInput): Promise<Turn> {
    return translate(() =>
      this.#handle(address).executeUpdate<Turn, [TurnInput]>(messages.turn, { updateId: turn.turnId, args: [turn] }),
    );
  }

  /** Cancels the running turn, or the one that is named. */
  async cancelTurn(address: SessionAddress, turnId: string | undefined): Promise<CancelResult> {
    const input = turnId === undefined ? {} : { turnId };
    return translate(() => this.#handle(address).executeUpdate(messages.cancelTurn, { args: [input] }));
  }

  /** Ends the session; resolves when its end is stored. */
  async close(address: SessionAddress, by: Requester): Promise<void> {
    const input: CloseInput = { by };
    await translate(() => this.#handle(address).executeUpdate(messages.close, { args: [input] }));
  }

  #handle({ tenant, sessionId }: SessionAddress) {
    return this.#client.workflow.getHandle(workflowIdOf(tenant, sessionId));
  }

  #starting(session: NewSession): WithStartWorkflowOperation<SessionWorkflow> {
    return new WithStartWorkflowOperation<SessionWorkflow>(sessionWorkflow, {
      workflowId: workflowIdOf(session.tenant, session.sessionId),
      taskQueue: this.#options.taskQueue,
      args: [{ ...session, idleTimeout: this.#options.idleTimeout }],
      // The same idempotency key again: the session that runs gets the update, one that has ended stays ended.
      workflowIdConflictPolicy: 'USE_EXISTING',
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
    });
  }
}

type SessionWorkflow = (input: SessionInput) => Promise<unknown>;

async function translate<Result>(call: () => Promise<Result>): Promise<Result> {
  try {
    return await call();
  } catch (error) {
    throw translated(error);
  }
}

function translated(error: unknown): unknown {
  if (error instanceof WorkflowNotFoundError || error instanceof WorkflowExecutionAlreadyStartedError) {
    return new SessionEnded();
  }
  if (error instanceof WorkflowUpdateFailedError) return refusalOf(error.cause) ?? error;
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError || isServiceFailure(error)) {
    return new Problem('unavailable', 'the orchestrator does not answer: try again', { 'retry-after': '2' });
  }
  return error;
}

/** Update-with-start wraps what the server, or its absence, says. */
const isServiceFailure = (error: unknown): boolean =>
  isGrpcServiceError(error) || (error instanceof ServiceError && isGrpcServiceError(error.cause));

/** The workflow says why it refuses; an update that lost its workflow says so by a failure of another type. */
function refusalOf(cause: unknown): Error | undefined {
  if (!(cause instanceof ApplicationFailure)) return undefined;
  switch (cause.type) {
    case refusals.closed:
    case 'AcceptedUpdateCompletedWorkflow':
      return new SessionEnded();
    case refusals.busy:
      return new Problem(tooManyTurns, cause.message, { 'retry-after': '1' });
    case refusals.invalid:
      return new Problem('invalid-request', cause.message);
    default:
      return undefined;
  }
}
