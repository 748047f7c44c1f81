/** Tenants with memories, as the probe sees them: on loopback as on the platform. */
import { randomUUID } from 'node:crypto';
import type { Received, Sent, Tenant } from './probe.ts';

/** A tenant with memories that only it may see. */
export interface MemoryTenant extends Tenant {
  /** Words of its memories, by which others may ask for them. */
  readonly lure: string;
  /** Everything by which others may point at it. */
  readonly owns: readonly string[];
}

/** Who remembers. */
export interface Rememberer {
  readonly name: string;
  readonly subject: string;
  /** Sessions of the tenant. */
  readonly sessions: readonly string[];
  send(sent: Sent): Promise<Received>;
}

/**
 * Stores two memories and one to spare. Their text begins with words that everybody may ask for; what follows is a secret,
 * and so are their ids.
 */
export async function tenantWithMemories({ name, subject, sessions, send }: Rememberer): Promise<MemoryTenant> {
  const [lure, secret] = [`Where is the treasure of ${randomUUID().slice(0, 8)}?`, `secret-${randomUUID()}`];
  const store = async (text: string): Promise<string> => {
    // Episodes are never near duplicates of each other.
    const body = { text, kind: 'episodic', ttlSeconds: 3600 };
    const answer = await send({ method: 'POST', path: '/v1/memories', headers: {}, body });
    if (answer.status !== 201) throw new Error(`${name} cannot remember: ${answer.status} ${answer.body}`);
    return (JSON.parse(answer.body) as { memory: { id: string } }).memory.id;
  };
  const ids = [await store(`${lure} ${secret} first`), await store(`${lure} ${secret} second`)];
  const spare = await store(`Nothing of value, ${randomUUID()}`);
  const recalled = async (): Promise<readonly string[]> => {
    const body = { query: lure, limit: 2 };
    const answer = await send({ method: 'POST', path: '/v1/memories/recall', headers: {}, body });
    const found = JSON.parse(answer.body) as { memories?: readonly { id: string }[] };
    return (found.memories ?? []).map(({ id }) => id).toSorted();
  };
  return {
    name,
    send,
    lure,
    owns: [...ids, subject, ...sessions],
    identifiers: { id: ids, owner: [subject], subject: [subject], tenant: [name], sessionId: sessions, query: [lure] },
    spare: { id: spare },
    keys: [],
    canaries: [secret],
    state: async () => {
      const each = await Promise.all(ids.map((id) => send({ method: 'GET', path: `/v1/memories/${id}`, headers: {} })));
      return JSON.stringify([await recalled(), ...each.map(({ status, body }) => [status, body])]);
    },
  };
}
