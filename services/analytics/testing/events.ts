import { createHash, randomUUID } from 'node:crypto';
import { event, type OutgoingEvent } from '@somagent/events';
import type { OutgoingMessage } from '@somagent/kit';

const actor = { kind: 'user', id: 'mary', client: null } as const;

/** What a usage event of {@link usageEvent} may say otherwise. */
export interface UsageContent {
  readonly tenant?: string;
  readonly promptTokens?: number;
  readonly completionTokens?: number;
  readonly persona?: string;
  readonly costMicros?: number;
  readonly time?: Date;
}

/** An event of a turn that used tokens. @param place decides every number that `content` leaves open */
export function usageEvent(place: number, content: UsageContent = {}): OutgoingEvent {
  const { tenant = place % 3 === 0 ? 'globex' : 'acme', time = new Date(), ...more } = content;
  const data = {
    sessionId: sessionOf(place % 50),
    turnId: randomUUID(),
    subject: 'mary',
    promptTokens: 100 + (place % 900),
    completionTokens: 10 + (place % 90),
    model: 50 + (place % 100),
    modelName: 'bundled',
    provider: 'slm',
    persona: `persona-${place % 4}`,
    capsule: `capsule-${place % 2}`,
    team: 'support',
    lane: 'interactive' as const,
    queue: place % 10,
    firstToken: 20 + (place % 30),
    platform: 5 + (place % 20),
    total: 55 + (place % 120),
    costMicros: 3 * (place % 100),
    outcome: 'completed' as const,
    reasons: [],
    ...more,
  };
  return event('usage.tokens', 'tokens.used', { tenant, actor, data, time });
}

/** A turn that ended. */
export function turnEnded(place: number, tenant: string, status: 'completed' | 'cancelled' | 'failed'): OutgoingEvent {
  const error = status === 'failed' ? 'the model is away' : null;
  const data = { sessionId: sessionOf(place), turnId: randomUUID(), status, error };
  return event('audit.session', 'turn.ended', { tenant, actor, data });
}

/** A decision about a request. */
export function verdict(place: number, tenant: string | null, allow: boolean, status: number): OutgoingEvent {
  return event('verdict.decisions', 'verdict.decided', {
    tenant,
    actor,
    requestId: `request-${place}`,
    data: {
      ...{ requestId: `request-${place}`, service: 'gateway', route: 'createSession', method: 'POST' },
      ...{ path: '/v1/sessions', capability: 'session:create', resource: { type: 'session', id: null }, allow },
      ...{ rule: allow ? 'soma.gateway.allow_by_role' : 'soma.gateway.default_deny', reasons: [], revision: 'r1' },
      ...{ latencyUs: 100 + place, status, input: null },
    },
  });
}

/** A session that opened. */
export const opened = (place: number, tenant: string): OutgoingEvent =>
  event('session.lifecycle', 'session.opened', {
    tenant,
    actor,
    data: { sessionId: sessionOf(place), owner: 'mary', teams: ['support'] },
  });

/** The message of an event. */
export const messageOf = ({ topic, key, value, headers }: OutgoingEvent): OutgoingMessage => ({
  ...{ topic, key, headers },
  value: JSON.stringify(value),
});

function sessionOf(place: number): string {
  const hex = createHash('sha256').update(`session ${place}`).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
