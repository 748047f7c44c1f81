import { type Kysely, sql } from 'kysely';
import type { Tables } from './database.ts';
import type { VectorStore } from './vector-store.ts';

/** What is left of memories in the vector store, counted after their deletion there. */
export interface Wiped {
  readonly vectors: { readonly state: 'absent' | 'present'; readonly points: Readonly<Record<string, number>> };
  /** Snapshots of the collections: every one made before is deleted. */
  readonly snapshots: { readonly deleted: number; readonly left: number };
}

/** A memory that was forgotten, and whose points nobody has proven to be gone. */
export interface Owed {
  readonly tenant: string;
  readonly memory_id: string;
}

/** What a vector store owes to a tenant. */
export async function owedTo(rows: Kysely<Tables>, tenant: string): Promise<readonly string[]> {
  const { rows: owed } = await sql<Owed>`
    select tenant, memory_id from forgotten where tenant = ${tenant} and wiped_at is null`.execute(rows);
  return owed.map(({ memory_id }) => memory_id);
}

/** Those of some memories whose deletion is owed. */
export async function owedAmong(rows: Kysely<Tables>, memories: readonly Owed[]): Promise<readonly Owed[]> {
  const { rows: owed } = await sql<Owed>`
    select tenant, memory_id from forgotten
    join unnest(${memories.map(({ tenant }) => tenant)}::text[], ${memories.map(({ memory_id }) => memory_id)}::uuid[])
      as some_rows (tenant, memory_id) using (tenant, memory_id)
    where wiped_at is null`.execute(rows);
  return owed;
}

/**
 * Deletes points, and the snapshots that would bring them back, and looks for them again. Only where nothing is left,
 * the deletion is owed no longer. For whoever holds the index.
 * @throws the error of the client: then everything is owed as before.
 */
export async function wipe(
  rows: Kysely<Tables>,
  store: Pick<VectorStore, 'remove' | 'present' | 'dropSnapshots'>,
  ids: readonly string[],
): Promise<Wiped> {
  await store.remove(ids);
  const snapshots = await store.dropSnapshots();
  const points = await store.present(ids);
  const state = Object.values(points).some((count) => count > 0) ? 'present' : 'absent';
  if (state === 'absent' && snapshots.left === 0) {
    await sql`
      update forgotten set wiped_at = clock_timestamp()
      where memory_id = any(${[...ids]}::uuid[]) and wiped_at is null`.execute(rows);
  }
  return { vectors: { state, points }, snapshots };
}

/** Whether nothing is left. */
export const isWiped = ({ vectors, snapshots }: Wiped): boolean => vectors.state === 'absent' && snapshots.left === 0;
