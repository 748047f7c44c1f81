import { sql } from 'kysely';
import type { Database } from './database.ts';
import { holdIndex } from './indexer.ts';
import type { VectorStore } from './vector-store.ts';

/** What a rebuild began with. */
export interface Reindexing {
  /** Collections that were deleted. */
  readonly dropped: readonly string[];
  /** Memories whose vectors are made again. */
  readonly memories: number;
}

/**
 * Deletes every collection of this service and makes each memory a task: the indexer builds the vectors again from
 * Postgres, oldest first. Recall finds by words until then. Safe to repeat, and to kill anywhere: the tasks are durable
 * before the first collection goes, and no indexer works while this holds its lock.
 */
export async function reindex(database: Database, vectors: Pick<VectorStore, 'dropCollections'>): Promise<Reindexing> {
  return database.platform.transaction().execute(async (rows) => {
    await holdIndex(rows);
    // By a connection of its own, so that it lasts whatever becomes of this transaction.
    const { rows: counted } = await sql<{ memories: number }>`
      with tasks as (
        insert into index_task (tenant, memory_id) select tenant, id from memory order by created_at, id returning 1
      ) select count(*)::integer as memories from tasks`.execute(database.platform);
    return { dropped: await vectors.dropCollections(), memories: counted[0]?.memories ?? 0 };
  });
}
