import { createGovernedApp, type GovernanceOptions, type GovernedApp, type QuotaTables } from '@somagent/governance';
import type { Logger } from '@somagent/kit';
import { Access } from './access.ts';
import type { Database } from './database.ts';
import type { Embeddings } from './embeddings.ts';
import { Forgetter } from './forget.ts';
import { createHandlers, type HandlerDependencies } from './handlers.ts';
import { Memories } from './memories.ts';
import { Recall } from './recall.ts';
import { routes } from './routes.ts';
import type { VectorStore } from './vector-store.ts';

/** Name of the service. */
export const service = 'memory-gateway';

/** What the application is made of. */
export interface MemoryAppOptions
  extends Omit<GovernanceOptions, 'service'>,
    Pick<HandlerDependencies, 'summarizer' | 'wake' | 'episodicDays' | 'recallDeadlineMs'> {
  readonly database: Database;
  readonly vectors: VectorStore;
  readonly embeddings: Embeddings;
  readonly log: Logger;
}

/** The HTTP application of the memory gateway. */
export function createMemoryApp(options: MemoryAppOptions): GovernedApp {
  const { database, vectors, embeddings, log, relations, policy, control, verdicts, quota, authentication } = options;
  const memories = new Memories(database);
  const { summarizer, wake, episodicDays, recallDeadlineMs } = options;
  return createGovernedApp({
    service,
    title: 'SomaGent memory',
    routes,
    handlers: createHandlers({
      database,
      memories,
      access: new Access({ relations, policy, control, verdicts }),
      recall: new Recall({ database, memories, vectors, embeddings, log }),
      forgetter: new Forgetter({ database, vectors, log }),
      summarizer,
      wake,
      log,
      episodicDays,
      recallDeadlineMs,
    }),
    authentication,
    control,
    policy,
    relations,
    quota,
    verdicts,
    log,
  });
}

/** The part of the database that counts requests. */
export const quotaTables = (database: Database) => ({
  of: (tenant: string) => database.of(tenant).$pickTables<keyof QuotaTables>(),
});
