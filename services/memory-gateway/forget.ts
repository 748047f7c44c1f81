import { appendEvents, type Logger, reasonOf } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import type { Database, Tables } from './database.ts';
import { holdIndex } from './indexer.ts';
import { forgottenEvent, idsPerEvent, type Origin, wipedEvents } from './memory-events.ts';
import { allRowsOf, type Scope } from './scope.ts';
import type { VectorStore } from './vector-store.ts';
import { isWiped, owedTo, type Wiped, wipe } from './wipe.ts';

/** What is left of forgotten memories, counted after the deletion. */
export interface ForgetProof {
  readonly checkedAt: string;
  /** Rows of the memories and of their scope, and queued work for their vectors. */
  readonly postgres: { readonly memories: number; readonly inScope: number; readonly indexTasks: number };
  /** Points by collection; `pending` with the reason while the vector store is away: the deletion is queued. */
  readonly vectors: Wiped['vectors'] | { readonly state: 'pending'; readonly reason: string };
  /** Snapshots of the collections: every one made before is deleted. Null while the vector store is away. */
  readonly snapshots: Wiped['snapshots'] | null;
  /** Events that wait for Kafka and carry a text; events name ids only. */
  readonly outbox: { readonly withText: number };
}

/** The answer to a request to forget. */
export interface Forgotten {
  readonly forgotten: number;
  /** Whether nothing is left in any store. */
  readonly proven: boolean;
  readonly proof: ForgetProof;
}

/** Whom a deletion asks. */
export interface ForgetParts {
  readonly database: Database;
  readonly vectors: Pick<VectorStore, 'remove' | 'present' | 'dropSnapshots'>;
  readonly log: Logger;
}

/** Deletes memories for good, in every store, and counts what is left. */
export class Forgetter {
  readonly #parts: ForgetParts;

  constructor(parts: ForgetParts) {
    this.#parts = parts;
  }

  /**
   * Deletes what is in the scope, expired or not, and proves it. Repeating it deletes what came since, and what the vector
   * store still owes to the tenant: nothing is proven before that is gone too.
   */
  async forget(scope: Scope, origin: Origin): Promise<Forgotten> {
    const ids: string[] = [];
    for (;;) {
      const some = await this.#delete(scope, origin, 'request');
      ids.push(...some);
      if (some.length < idsPerEvent) break;
    }
    const proof = await this.#wipe(scope, origin, ids);
    return { forgotten: ids.length, proven: isProven(proof), proof };
  }

  /** Deletes memories whose time is over. @returns how many */
  async expire(tenant: string, origin: Origin): Promise<number> {
    const scope: Scope = { tenant, visible: { whole: true }, filter: {} };
    const ids = await this.#delete(scope, origin, 'expired');
    if (ids.length > 0) await this.#wipe(scope, origin, ids);
    return ids.length;
  }

  /**
   * The rows, what keeps their ids from being stored again, work for the indexer and the event: all or nothing. Near
   * duplicates of what is deleted take its place.
   */
  #delete(scope: Scope, origin: Origin, reason: 'request' | 'expired'): Promise<readonly string[]> {
    const { tenant } = scope;
    const due = reason === 'request' ? sql`true` : sql`expires_at <= clock_timestamp()`;
    return this.#parts.database
      .of(tenant)
      .transaction()
      .execute(async (rows) => {
        const { rows: gone } = await sql<{ id: string }>`
          with gone as (
            delete from memory where tenant = ${tenant} and id in (
              select id from memory where ${allRowsOf(scope)} and ${due} limit ${idsPerEvent} for update
            ) returning id
          ), named as (
            insert into forgotten (tenant, memory_id) select ${tenant}, id from gone on conflict do nothing
          ), task as (
            insert into index_task (tenant, memory_id) select ${tenant}, id from gone
          )
          select id from gone`.execute(rows);
        const ids = gone.map(({ id }) => id);
        if (ids.length === 0) return ids;
        await sql`
          with freed as (
            update memory set duplicate_of = null
            where tenant = ${tenant} and duplicate_of = any(${ids}::uuid[]) returning id
          )
          insert into index_task (tenant, memory_id) select ${tenant}, id from freed`.execute(rows);
        await appendEvents(rows, [forgottenEvent(scope, origin, reason, ids)]);
        return ids;
      });
  }

  async #wipe(scope: Scope, origin: Origin, ids: readonly string[]): Promise<ForgetProof> {
    const wiped = await this.#wipeVectors(scope.tenant, origin, ids);
    return { ...(await this.#rows(scope, ids)), ...wiped };
  }

  /** Deletes the vectors now, not when the indexer comes to it, and those that are owed from before. */
  async #wipeVectors(
    tenant: string,
    origin: Origin,
    ids: readonly string[],
  ): Promise<Pick<ForgetProof, 'vectors' | 'snapshots'>> {
    const { database, vectors, log } = this.#parts;
    try {
      return await database.platform.transaction().execute(async (rows) => {
        await holdIndex(rows);
        const own = new Set(ids);
        const owed = (await owedTo(rows, tenant)).filter((id) => !own.has(id));
        const wiped = await wipe(rows, vectors, [...ids, ...owed]);
        if (isWiped(wiped)) {
          await this.#dropTasks(rows, tenant, [...ids, ...owed]);
          await appendEvents(rows, wipedEvents(tenant, origin, owed));
        }
        return wiped;
      });
    } catch (error) {
      const reason = reasonOf(error);
      log.warn({ tenant, reason }, 'vectors of forgotten memories wait for their deletion');
      return { vectors: { state: 'pending', reason }, snapshots: null };
    }
  }

  async #dropTasks(rows: Kysely<Tables>, tenant: string, ids: readonly string[]): Promise<void> {
    await sql`
      delete from index_task where tenant = ${tenant} and memory_id = any(${[...ids]}::uuid[])
        and not exists (select 1 from memory m where m.tenant = index_task.tenant and m.id = memory_id)`.execute(rows);
  }

  async #rows(scope: Scope, ids: readonly string[]): Promise<Pick<ForgetProof, 'checkedAt' | 'postgres' | 'outbox'>> {
    const { rows } = await sql<{ memories: number; in_scope: number; index_tasks: number; with_text: number }>`
      select
        (select count(*) from memory where tenant = ${scope.tenant} and id = any(${[...ids]}::uuid[]))::integer as memories,
        (select count(*) from memory where ${allRowsOf(scope)})::integer as in_scope,
        (select count(*) from index_task where memory_id = any(${[...ids]}::uuid[]))::integer as index_tasks,
        (select count(*) from outbox where topic = 'audit.memory' and value -> 'data' ? 'text')::integer as with_text`.execute(
      this.#parts.database.of(scope.tenant),
    );
    const counted = rows[0] ?? { memories: -1, in_scope: -1, index_tasks: -1, with_text: -1 };
    return {
      checkedAt: new Date().toISOString(),
      postgres: { memories: counted.memories, inScope: counted.in_scope, indexTasks: counted.index_tasks },
      outbox: { withText: counted.with_text },
    };
  }
}

const isProven = ({ postgres, vectors, snapshots, outbox }: ForgetProof): boolean =>
  postgres.memories === 0 &&
  postgres.inScope === 0 &&
  vectors.state === 'absent' &&
  snapshots?.left === 0 &&
  outbox.withText === 0;
