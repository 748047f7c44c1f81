import type { Context } from 'hono';
import { tenantOrNull } from './caller.ts';
import type { Exchange, GovernedEnv } from './exchange.ts';
import type { PolicyInput, PolicyVerdict, VerdictRecord } from './neighbours.ts';
import type { Problem } from './problem.ts';

/** A verdict of the policy with what it was made from. */
export interface PolicyDecision {
  readonly input: PolicyInput;
  readonly verdict: PolicyVerdict;
  readonly revision: string | null;
}

/** What every verdict says, whoever decided. */
function commonPart(service: string, context: Context<GovernedEnv>, exchange: Exchange) {
  const { caller, route } = exchange;
  return {
    time: new Date().toISOString(),
    requestId: exchange.requestId,
    tenant: caller === undefined ? null : tenantOrNull(caller.tenant),
    actor:
      caller === undefined
        ? ({ kind: 'system', id: 'anonymous', client: null } as const)
        : { kind: caller.kind, id: caller.subject, client: caller.client },
    service,
    route: route?.operationId ?? 'undeclared',
    method: context.req.method,
    path: route?.path ?? null,
    capability: route?.capability ?? null,
    latencyUs: Math.round((performance.now() - exchange.startedAt) * 1000),
  };
}

/** The record of a request that governance refused before, after or instead of the policy. */
export function refusalRecord(
  service: string,
  context: Context<GovernedEnv>,
  exchange: Exchange,
  problem: Problem,
): VerdictRecord {
  return {
    ...commonPart(service, context, exchange),
    resource: null,
    allow: false,
    rule: `soma.governance.${problem.type.replaceAll('-', '_')}`,
    reasons: [problem.message],
    revision: null,
    status: problem.status,
    input: null,
  };
}

/** The record of a request that the policy decided. @param status of a refusal; null where the handler answers. */
export function policyRecord(
  service: string,
  context: Context<GovernedEnv>,
  exchange: Exchange,
  { input, verdict, revision }: PolicyDecision,
  status: number | null,
): VerdictRecord {
  const { type, id } = input.resource;
  const { allow, rule, reasons } = verdict;
  const resource = { type, id };
  return { ...commonPart(service, context, exchange), resource, allow, rule, reasons, revision, status, input };
}
