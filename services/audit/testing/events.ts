import { event, type OutgoingEvent } from '@somagent/events';

/** Who acts in tests. */
export const actor = { kind: 'user', id: 'u-1', client: 'acme-agent' } as const;

/** A verdict as a service sends it, with an input of the size that real ones have. */
export function verdictEvent(tenant: string | null, requestId: string, allow = true): OutgoingEvent {
  return event('verdict.decisions', 'verdict.decided', {
    tenant,
    actor,
    requestId,
    data: {
      requestId,
      service: 'gateway',
      route: 'createTurn',
      method: 'POST',
      path: '/v1/sessions/{id}/turns',
      capability: 'session:turn',
      resource: { type: 'session', id: '0190c6f0-3f2b-7c1a-8f5e-0123456789ab' },
      allow,
      rule: allow ? 'soma.gateway.allow_by_role' : 'soma.gateway.deny_by_default',
      reasons: allow ? ['the role agent has session:turn'] : ['no role of the subject has session:turn'],
      revision: 'b1946ac92492d2347c6235b4d2611184',
      latencyUs: 87.5,
      status: allow ? 200 : 403,
      input: { subject: { tenant, roles: ['agent'], teams: ['blue'] }, action: { capability: 'session:turn' } },
    },
  });
}
