import { type EventOf, readEvent } from '@somagent/events';
import type { IncomingMessage, Logger } from '@somagent/kit';
import { asTenant } from '@somagent/kit';
import { type Account, accountFacts, personaOf, sessionFacts, teamFacts } from './facts.ts';
import type { TupleStore } from './tuple-store.ts';
import { objectOf, type Tuple, tenantObject, userOf } from './tuples.ts';

/** The topics that relations follow. */
export const followedTopics = ['identity.changes', 'session.lifecycle'] as const;

type Change = EventOf<'identity.changes'>;
type Lifecycle = EventOf<'session.lifecycle'>;

/**
 * Turns what happened at the identity service and in sessions into tuples. Each event is complete, and applied by
 * comparing with what is there: one that comes twice changes nothing the second time.
 */
export class Synchronization {
  readonly #store: TupleStore;
  readonly #log: Logger;

  constructor(store: TupleStore, log: Logger) {
    this.#store = store;
    this.#log = log;
  }

  /** Applies messages of {@link followedTopics}, in order. */
  async apply(messages: readonly IncomingMessage[]): Promise<void> {
    for (const { topic, key, value } of messages) {
      const event = JSON.parse(value.toString()) as { readonly tenant?: string | null };
      // The brokers know who may write to a topic, not for whom: a key of one tenant must not carry news of another.
      if (key.startsWith(`${event.tenant ?? 'platform'}/`)) await this.#message(topic, event);
      else this.#log.error({ tenant: event.tenant, topic, key }, 'an event under a key of another tenant is refused');
    }
  }

  async #message(topic: string, value: unknown): Promise<void> {
    if (topic === 'identity.changes') return this.identity(readEvent('identity.changes', value));
    if (topic === 'session.lifecycle') return this.session(readEvent('session.lifecycle', value));
    throw new Error(`a message of topic ${topic} came: only ${followedTopics.join(' and ')} are followed`);
  }

  /** A change at the identity service. */
  async identity(change: Change): Promise<void> {
    const { tenant } = change;
    if (tenant === null) return;
    await asTenant(tenant, async () => {
      const { added, removed } = await this.#identity(tenant, change);
      this.#log.info({ event: change.type, id: change.id, added, removed }, 'relations follow the identity service');
    });
  }

  async #identity(tenant: string, change: Change): Promise<{ added: number; removed: number }> {
    switch (change.type) {
      case 'team.put':
        return this.#bring(
          await this.#ofObject('team', tenant, change.data.name, 'tenant'),
          teamFacts(tenant, change.data.name),
        );
      case 'team.removed':
        return this.#bring(await this.#store.find({ object: objectOf('team', tenant, change.data.name) }), []);
      case 'user.put':
        return this.#account({ tenant, ...change.data });
      case 'user.removed':
        return this.#bring(await this.#everythingOf(tenant, change.data.userId), []);
      default:
        // A tenant has no tuple of its own; suspension is enforced by the control state.
        return { added: 0, removed: 0 };
    }
  }

  /** A session that opens. One that is closed stays visible to those who could see it. */
  async session(event: Lifecycle): Promise<void> {
    const { tenant } = event;
    if (event.type !== 'session.opened' || tenant === null) return;
    const { sessionId, owner, teams } = event.data;
    await asTenant(tenant, () => this.#store.write(sessionFacts({ tenant, sessionId, owner, teams }), []));
  }

  async #account(account: Account): Promise<{ added: number; removed: number }> {
    const { tenant, userId, username, kind } = account;
    const user = userOf({ tenant, subject: userId });
    const actual = [
      ...(await this.#store.find({ user, object: tenantObject(tenant) })),
      ...(await this.#store.find({ user, object: 'team:' })),
      ...(kind === 'service-account' ? await this.#store.find({ object: personaOf(tenant, username) }) : []),
    ];
    return this.#bring(actual, accountFacts(account));
  }

  /** All that a user has: grants too, which would come alive again with a user of the same id. */
  async #everythingOf(tenant: string, userId: string): Promise<readonly Tuple[]> {
    const user = userOf({ tenant, subject: userId });
    const found = await Promise.all(
      [tenantObject(tenant), 'team:', 'persona:', 'capsule:', 'tool:'].map((object) =>
        this.#store.find({ user, object }),
      ),
    );
    const personas = found.flat().filter(({ relation }) => relation === 'account');
    const rest = await Promise.all(personas.map(({ object }) => this.#store.find({ object })));
    return [...found.flat(), ...rest.flat()];
  }

  async #ofObject(type: 'team', tenant: string, id: string, relation: string): Promise<readonly Tuple[]> {
    const tuples = await this.#store.find({ object: objectOf(type, tenant, id) });
    return tuples.filter((tuple) => tuple.relation === relation);
  }

  #bring(actual: readonly Tuple[], wanted: readonly Tuple[]) {
    return this.#store.bring(actual, wanted);
  }
}
