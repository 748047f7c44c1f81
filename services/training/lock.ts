import { event, type OutgoingEvent } from '@somagent/events';
import type { ControlState } from '@somagent/kit';
import type { PolicyEngine, PolicyInput, Verdict } from '@somagent/policy';
import type { Requester } from './database.ts';

/** What is asked about: training or taking data for it, on whose behalf. */
export interface TrainingQuestion {
  readonly tenant: string;
  readonly requester: Requester;
  readonly capability: 'training:run' | 'training:export';
  /** The run, where there is one. */
  readonly runId: string | null;
  readonly requestId: string;
}

/** A verdict and the event that records it. */
export interface TrainingVerdict {
  readonly verdict: Verdict;
  readonly event: OutgoingEvent;
}

/** Options of {@link TrainingLock}. */
export interface TrainingLockOptions {
  readonly engine: Pick<PolicyEngine, 'evaluate' | 'revision'>;
  readonly control: Pick<ControlState, 'halted' | 'suspended' | 'revoked' | 'training' | 'onChange' | 'ageMs'>;
  /** Time between two questions about a run without a change of the control state, milliseconds. @default 1000 */
  readonly interval?: number;
  /**
   * Silence of the identity service after which a run stops, milliseconds: a lock that nobody could tell of counts.
   * @default 60000
   */
  readonly patience?: number;
}

/** Follows whether a run may go on. */
export interface Followed {
  /** Aborts with an Error in words as soon as the policy says no. */
  readonly signal: AbortSignal;
  release(): void;
}

/** Asks the policy of training: before anything begins, and as long as it runs. */
export class TrainingLock {
  readonly #options: TrainingLockOptions;

  constructor(options: TrainingLockOptions) {
    this.#options = options;
  }

  decide(question: TrainingQuestion): TrainingVerdict {
    const asked = performance.now();
    const input = this.#inputOf(question);
    const verdict = this.#options.engine.evaluate('soma/training/verdict', input);
    return { verdict, event: this.#eventOf(question, input, verdict, performance.now() - asked) };
  }

  /** @param record called with the verdict that ends it */
  follow(question: TrainingQuestion, record: (event: OutgoingEvent) => void): Followed {
    const { control, interval = 1000, patience = 60_000 } = this.#options;
    const stopped = new AbortController();
    const ask = () => {
      if (stopped.signal.aborted) return;
      if (control.ageMs > patience) return stopped.abort(new Error('the control state is not known any more'));
      const { verdict, event: verdictEvent } = this.decide(question);
      if (verdict.allow) return;
      record(verdictEvent);
      stopped.abort(new Error(verdict.reasons.join('; ')));
    };
    const timer = setInterval(ask, interval);
    const leave = control.onChange(ask);
    ask();
    const release = () => {
      clearInterval(timer);
      leave();
    };
    return { signal: stopped.signal, release };
  }

  #inputOf({ tenant, requester, capability, runId, requestId }: TrainingQuestion): PolicyInput {
    const { control } = this.#options;
    const { id, kind, roles, teams, client, scopes, keyId } = requester;
    return {
      subject: { tenant, id, kind, roles, teams, client, scopes },
      action: { service: 'training', route: 'train', method: 'RUN', capability, audit: 'admin' },
      resource: { tenant, type: 'training', id: runId },
      relation: { required: null, held: null },
      control: {
        halted: control.halted(tenant),
        suspended: control.suspended(tenant, id),
        // Who logs out does not end a run; who revokes the key that asked for it does.
        revoked: keyId !== null && control.revoked({ keyId }),
        training: control.training(tenant),
      },
      context: { time: new Date().toISOString(), requestId },
    };
  }

  #eventOf(
    { tenant, requester, capability, runId, requestId }: TrainingQuestion,
    input: PolicyInput,
    verdict: Verdict,
    milliseconds: number,
  ): OutgoingEvent {
    return event('verdict.decisions', 'verdict.decided', {
      tenant,
      actor: { kind: requester.kind, id: requester.id, client: requester.client },
      requestId,
      data: {
        requestId,
        service: 'training',
        route: 'train',
        method: null,
        path: null,
        capability,
        resource: { type: 'training', id: runId },
        allow: verdict.allow,
        rule: verdict.rule,
        reasons: [...verdict.reasons],
        revision: this.#options.engine.revision,
        latencyUs: Math.round(milliseconds * 1000),
        status: null,
        input: { ...input },
      },
    });
  }
}
