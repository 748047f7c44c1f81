import { type Actor, event, type OutgoingEvent } from '@somagent/events';
import type { MemoryKind } from './database.ts';
import type { Scope } from './scope.ts';

/** Who asked, and by which request. */
export interface Origin {
  readonly actor: Actor;
  readonly requestId: string | null;
}

/** What the service does by itself. */
export const ownWork = (name: string): Origin => ({
  actor: { kind: 'system', id: `memory-gateway/${name}`, client: null },
  requestId: null,
});

/** A memory that was stored. */
export interface StoredFacts {
  readonly memoryId: string;
  readonly owner: string;
  readonly team: string | null;
  readonly persona: string | null;
  readonly sessionId: string | null;
  readonly kind: MemoryKind;
  readonly length: number;
  readonly expiresAt: string | null;
}

/** Tells that something was remembered. */
export const storedEvent = (tenant: string, origin: Origin, data: StoredFacts): OutgoingEvent =>
  event('audit.memory', 'memory.stored', { tenant, ...origin, data });

/** The most ids that one event names. */
export const idsPerEvent = 1000;

/** Tells that memories are gone; several events where there are many. */
export function forgottenEvent(
  scope: Pick<Scope, 'tenant' | 'filter' | 'visible'>,
  origin: Origin,
  reason: 'request' | 'expired',
  memoryIds: readonly string[],
): OutgoingEvent {
  const data = { ...scopeFacts(scope), reason, count: memoryIds.length, memoryIds: [...memoryIds] };
  return event('audit.memory', 'memory.forgotten', { tenant: scope.tenant, ...origin, data });
}

/** Tells that nothing is left of memories in the vector store, which was away when they were forgotten. */
export function wipedEvents(tenant: string, origin: Origin, memoryIds: readonly string[]): readonly OutgoingEvent[] {
  const events: OutgoingEvent[] = [];
  for (let from = 0; from < memoryIds.length; from += idsPerEvent) {
    const ids = memoryIds.slice(from, from + idsPerEvent);
    const data = { count: ids.length, memoryIds: [...ids] };
    events.push(event('audit.memory', 'memory.wiped', { tenant, ...origin, data }));
  }
  return events;
}

/** Tells that an export begins. */
export const exportedEvent = (scope: Scope, origin: Origin, count: number): OutgoingEvent =>
  event('audit.memory', 'memory.exported', { tenant: scope.tenant, ...origin, data: { ...scopeFacts(scope), count } });

const scopeFacts = ({ filter, visible }: Pick<Scope, 'filter' | 'visible'>) => ({
  owner: filter.owner ?? (visible.whole === true ? null : (visible.owner ?? null)),
  team: filter.team ?? null,
  persona: filter.persona ?? null,
  sessionId: filter.sessionId ?? null,
});
