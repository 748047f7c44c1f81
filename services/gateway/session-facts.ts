import { objectOf, parseName, type RelationSubject, type Tuple, tenantObject, userOf } from '@somagent/relations';
import type { SessionReader } from './reader.ts';

/**
 * What the database says about the owner and the teams of a session, as relations. OpenFGA learns of a session through
 * Kafka, a moment after its client does: until then these facts count.
 */
export const sessionFacts =
  (reader: SessionReader) =>
  async ({ tenant }: RelationSubject, object: string): Promise<readonly Tuple[]> => {
    const name = parseName(object);
    if (name?.type !== 'session' || name.tenant !== tenant) return [];
    const owner = await reader.ownerOf(tenant, name.id);
    if (owner === undefined) return [];
    return [
      { user: tenantObject(tenant), relation: 'tenant', object },
      { user: userOf({ tenant, subject: owner.subject }), relation: 'owner', object },
      ...owner.teams.map((team) => ({ user: objectOf('team', tenant, team), relation: 'team', object })),
    ];
  };
