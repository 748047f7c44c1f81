import { event, type OutgoingEvent } from '@somagent/events';
import type { PolicyEngine, PolicyInput, Verdict } from '@somagent/policy';
import type { Control } from './halt.ts';

/** A step of a session that policy decides on. */
export interface Step {
  readonly tenant: string;
  readonly sessionId: string;
  /** On whose behalf. */
  readonly subject: string;
  readonly capability: 'model:generate' | 'memory:read' | 'memory:write';
  /** Of the request that the step belongs to; the turn's id where there is none. */
  readonly requestId: string;
}

/** Options of {@link StepPolicy}. */
export interface StepPolicyOptions {
  readonly engine: Pick<PolicyEngine, 'evaluate' | 'revision' | 'ready'>;
  readonly control: Control & { training(tenant: string): 'locked' | 'unlocked' };
  /** Who this worker is: `sub` of its own workload token. */
  readonly workload: string;
}

/** Names of the steps in verdicts. */
const routes = { 'model:generate': 'generate', 'memory:read': 'recall', 'memory:write': 'remember' } as const;

/** A verdict and the event that records it. */
export interface StepVerdict {
  readonly verdict: Verdict;
  readonly event: OutgoingEvent;
}

/** Asks the policy of the orchestrator before each step; without a bundle the answer is no. */
export class StepPolicy {
  readonly #options: StepPolicyOptions;

  constructor(options: StepPolicyOptions) {
    this.#options = options;
  }

  /** Whether there is no policy yet that could decide. */
  get undecided(): boolean {
    return !this.#options.engine.ready;
  }

  decide(step: Step): StepVerdict {
    const asked = performance.now();
    const input = this.#inputOf(step);
    const verdict = this.#options.engine.evaluate('soma/orchestrator/verdict', input);
    return { verdict, event: this.#eventOf(step, input, verdict, performance.now() - asked) };
  }

  #inputOf({ tenant, sessionId, subject, capability, requestId }: Step): PolicyInput {
    const { control, workload } = this.#options;
    return {
      subject: { tenant, id: workload, kind: 'workload', roles: [], teams: [], client: null, scopes: null },
      action: { service: 'orchestrator', route: routes[capability], method: 'STEP', capability, audit: 'write' },
      resource: { tenant, type: 'session', id: sessionId },
      relation: { required: null, held: null },
      control: {
        halted: control.halted(tenant),
        suspended: control.suspended(tenant, subject),
        revoked: false,
        training: control.training(tenant),
      },
      context: { time: new Date().toISOString(), requestId },
    };
  }

  #eventOf(step: Step, input: PolicyInput, verdict: Verdict, milliseconds: number): OutgoingEvent {
    const { tenant, sessionId, capability, requestId } = step;
    return event('verdict.decisions', 'verdict.decided', {
      tenant,
      actor: { kind: 'workload', id: this.#options.workload, client: null },
      requestId,
      data: {
        requestId,
        service: 'orchestrator',
        route: routes[capability],
        method: null,
        path: null,
        capability,
        resource: { type: 'session', id: sessionId },
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
