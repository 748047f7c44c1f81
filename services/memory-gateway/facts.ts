import {
  objectOf,
  parseName,
  type RelationSubject,
  type Tuple,
  tenantObject,
  userOf,
} from '@somagent/relations/tuples.ts';
import type { Memories } from './memories.ts';

/** What the database says about a memory, as relations: it is the only place that knows. */
export const memoryFacts =
  (memories: Pick<Memories, 'get'>) =>
  async ({ tenant }: RelationSubject, object: string): Promise<readonly Tuple[]> => {
    const name = parseName(object);
    if (name?.type !== 'memory' || name.tenant !== tenant) return [];
    const memory = await memories.get(tenant, name.id);
    if (memory === undefined) return [];
    const { owner, team, persona, sessionId } = memory;
    return [
      { user: tenantObject(tenant), relation: 'tenant', object },
      { user: userOf({ tenant, subject: owner }), relation: 'owner', object },
      ...(team === null ? [] : [{ user: objectOf('team', tenant, team), relation: 'team', object }]),
      ...(persona === null ? [] : [{ user: objectOf('persona', tenant, persona), relation: 'persona', object }]),
      ...(sessionId === null ? [] : [{ user: objectOf('session', tenant, sessionId), relation: 'session', object }]),
    ];
  };
