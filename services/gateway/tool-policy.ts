import {
  type Caller,
  type ControlState,
  type PolicyEngine,
  type PolicyInput,
  type PolicyVerdict,
  Problem,
  tenantOrNull,
  type VerdictSink,
} from '@somagent/governance';
import { toolDenied } from './openai-problems.ts';

/** Whom it asks. */
export interface ToolPolicyOptions {
  readonly policy: PolicyEngine;
  readonly control: ControlState;
  readonly verdicts: VerdictSink;
}

/** A request that gives tools to a model. */
export interface ToolRequest {
  readonly requestId: string;
  readonly method: string;
  readonly path: string;
  readonly caller: Caller;
  /** Whether it belongs to a session that the caller has been found to be able to use. */
  readonly usesSession: boolean;
}

const entrypoint = 'soma/tools/verdict';

/** Asks the policy of tools for each tool that a model is offered: what it may not call it shall not be shown. */
export class ToolPolicy {
  readonly #options: ToolPolicyOptions;

  constructor(options: ToolPolicyOptions) {
    this.#options = options;
  }

  /** Records a verdict for each name. @throws Problem tool-denied for the first that is denied, with its rule */
  require(request: ToolRequest, names: readonly string[]): void {
    for (const [index, name] of names.entries()) {
      const { allow, rule, reasons } = this.#decide(request, name);
      if (allow) continue;
      throw new Problem(toolDenied, `tool ${name} is denied by ${rule}: ${reasons.join('; ')}`, {}, `tools.${index}`);
    }
  }

  #decide(request: ToolRequest, name: string): PolicyVerdict {
    const { policy, verdicts } = this.#options;
    const asked = performance.now();
    const input = this.#inputOf(request, name);
    const verdict = evaluate(policy, input);
    const { tenant, kind, subject, client } = request.caller;
    verdicts.record({
      time: new Date().toISOString(),
      requestId: request.requestId,
      tenant: tenantOrNull(tenant),
      actor: { kind, id: subject, client },
      service: 'tools',
      route: 'call',
      method: request.method,
      path: request.path,
      capability: 'tool:call',
      resource: { type: 'tool', id: name },
      allow: verdict.allow,
      rule: verdict.rule,
      reasons: verdict.reasons,
      revision: policy.revision,
      latencyUs: Math.round((performance.now() - asked) * 1000),
      status: verdict.allow ? null : toolDenied.status,
      input,
    });
    return verdict;
  }

  #inputOf({ requestId, method, caller, usesSession }: ToolRequest, name: string): PolicyInput {
    const { tenant, subject: id, kind, roles, teams, client, scopes } = caller;
    const { control } = this.#options;
    return {
      subject: { tenant: tenantOrNull(tenant), id, kind, roles, teams, client, scopes },
      action: { service: 'tools', route: 'call', method, capability: 'tool:call', audit: 'write' },
      resource: { tenant: tenantOrNull(tenant), type: 'tool', id: name },
      // What a tool changes it changes for a session: without one no relation is held.
      relation: usesSession ? { required: 'can_use', held: true } : { required: null, held: null },
      control: { halted: control.halted(tenant), suspended: null, revoked: false, training: control.training(tenant) },
      context: { time: new Date().toISOString(), requestId },
    };
  }
}

function evaluate(policy: PolicyEngine, input: PolicyInput): PolicyVerdict {
  try {
    return policy.evaluate(entrypoint, input);
  } catch {
    throw new Problem('unavailable', 'no policy is in force, so nothing is allowed: try again', { 'retry-after': '2' });
  }
}
