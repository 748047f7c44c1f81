import { event } from '@somagent/events';
import { createPool, KafkaProducer, type Logger } from '@somagent/kit';
import { openFgaOf, type ReconcileConfig } from './config.ts';
import { IdentityDirectory } from './directory.ts';
import { type Difference, describeDifference, Reconciliation } from './reconciliation.ts';
import { StoredSessions } from './sessions.ts';
import { ensureModel } from './store.ts';
import { TupleStore } from './tuple-store.ts';
import { tenantOf } from './tuples.ts';

/** What every command but `migrate` works with. */
export interface Parts {
  readonly store: TupleStore;
  readonly directory: IdentityDirectory;
  readonly sessions: StoredSessions;
  readonly reconciliation: Reconciliation;
  readonly record: (differences: readonly Difference[]) => Promise<void>;
  close(): Promise<void>;
}

const actor = { kind: 'system', id: 'relations', client: null } as const;
/** Lines of one event: an event has at most 900 kB. */
const linesOfEvent = 500;

/** Connects to everything, and makes store and model unless they are there. */
export async function connectParts(config: ReconcileConfig, log: Logger): Promise<Parts> {
  const client = openFgaOf(config);
  const store = new TupleStore(client, await ensureModel(client, config.OPENFGA_STORE));
  const kafka = new KafkaProducer(config, { clientId: 'relations' });
  const sessions = new StoredSessions(createPool(config, log));
  const directory = new IdentityDirectory({
    url: config.IDENTITY_URL,
    caFile: config.IDENTITY_CA_FILE,
    tokenFile: config.IDENTITY_TOKEN_FILE,
  });
  const record = async (differences: readonly Difference[]) => {
    for (const difference of differences) {
      const tenant = tenantOf(difference.tuple.object) ?? null;
      log.warn({ tenant, difference: describeDifference(difference) }, 'a relation is not as its source says');
    }
    await kafka.send(repairEvents(differences));
  };
  return {
    store,
    directory,
    sessions,
    record,
    reconciliation: new Reconciliation({ store, directory, sessions, record }),
    close: async () => {
      await kafka.close();
      await sessions.close();
    },
  };
}

/** What is about to be repaired, tenant by tenant: sent before the repair, so that none is without its record. */
export function repairEvents(differences: readonly Difference[]) {
  const byTenant = Map.groupBy(differences, ({ tuple }) => tenantOf(tuple.object) ?? null);
  return [...byTenant].flatMap(([tenant, all]) => {
    const parts = Array.from({ length: Math.ceil(all.length / linesOfEvent) }, (_, index) =>
      all.slice(index * linesOfEvent, (index + 1) * linesOfEvent),
    );
    return parts.map((part) => {
      const added = part.filter(({ kind }) => kind === 'missing').length;
      const data = { added, removed: part.length - added, differences: part.map(describeDifference) };
      const { topic, key, value, headers } = event('audit.control', 'relations.repaired', { tenant, actor, data });
      return { topic, key, headers, value: JSON.stringify(value) };
    });
  });
}
