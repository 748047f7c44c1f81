import { setTimeout as sleep } from 'node:timers/promises';
import { appendEvents, type Logger, reasonOf } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import type { Database, MemoryKind, Tables } from './database.ts';
import { cosine, type Embeddings, isRefused } from './embeddings.ts';
import { ownWork, wipedEvents } from './memory-events.ts';
import { never, type PointPayload } from './vector-filter.ts';
import type { Point, VectorStore } from './vector-store.ts';
import { isWiped, owedAmong, wipe } from './wipe.ts';

/** Options of {@link Indexer}. */
export interface IndexerOptions {
  readonly database: Database;
  readonly embeddings: Pick<Embeddings, 'embed'>;
  readonly vectors: Pick<VectorStore, 'ensure' | 'upsert' | 'remove' | 'search' | 'present' | 'dropSnapshots'>;
  readonly log: Logger;
  /** Cosine from which on two facts of the same scope say the same. @default 0.985 */
  readonly nearDuplicate?: number;
  /** The most memories of one batch. @default 32 */
  readonly batch?: number;
}

/** What the indexer knows of itself. */
export interface IndexerStatus {
  /** Why the newest batch failed; null when it did not. */
  readonly failure: string | null;
  /** Memories that this process has indexed. */
  readonly indexed: number;
}

/** Keys of the advisory lock that one indexer, or one deletion, holds at a time. */
const lock = { space: 0x6d656d6f, index: 1 } as const;

/** Two who hold it never write vectors at the same time: a deletion is not undone by a batch that was read before. */
export const holdIndex = (rows: Kysely<Tables>): Promise<unknown> =>
  sql`select pg_advisory_xact_lock(${lock.space}, ${lock.index})`.execute(rows);

const pauses = { idle: 1000, failed: 200, longest: 5000 } as const;

interface Task {
  readonly seq: string;
  readonly tenant: string;
  readonly memory_id: string;
}

interface Row {
  readonly tenant: string;
  readonly id: string;
  readonly owner: string;
  readonly team: string | null;
  readonly persona: string | null;
  readonly session_id: string | null;
  readonly kind: MemoryKind;
  readonly text: string;
  readonly created_at: Date;
  readonly expires_at: Date | null;
}

interface Embedded {
  readonly row: Row;
  readonly vector: readonly number[];
}

/**
 * Makes the vectors say what Postgres says. A task only names a memory; what is done for it follows from its row as it
 * is then, so a task that is done twice, late or after a kill changes nothing. Tasks are taken in order and deleted in
 * the transaction that has done them. Any number may run: an advisory lock lets one work at a time.
 */
export class Indexer {
  readonly #options: IndexerOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #wake = Promise.withResolvers<void>();
  #failure: string | null = null;
  #indexed = 0;

  constructor(options: IndexerOptions) {
    this.#options = options;
  }

  get status(): IndexerStatus {
    return { failure: this.#failure, indexed: this.#indexed };
  }

  /** Begins; errors are logged and tried again. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Something was stored here: look now. */
  wake(): void {
    this.#wake.resolve();
  }

  /** Ends after the batch under way; what is not done stays a task. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake.resolve();
    await this.#running;
  }

  /** Memories that wait for their vector, and the age of the oldest task in milliseconds. */
  async backlog(): Promise<{ readonly tasks: number; readonly oldest: number }> {
    const { rows } = await sql<{ tasks: number; oldest: number }>`
      select (select count(*) from (select 1 from index_task limit 100000) counted)::integer as tasks,
        coalesce((select extract(epoch from clock_timestamp() - created_at) * 1000
          from index_task order by seq limit 1), 0)::float as oldest`.execute(this.#options.database.platform);
    return rows[0] ?? { tasks: 0, oldest: 0 };
  }

  /** Does one batch. @returns how many tasks are done; 0 when there is none, or another one works. */
  async step(): Promise<number> {
    const { database, batch = 32 } = this.#options;
    return database.platform.transaction().execute(async (rows) => {
      const { rows: locks } = await sql<{ held: boolean }>`
        select pg_try_advisory_xact_lock(${lock.space}, ${lock.index}) as held`.execute(rows);
      if (locks[0]?.held !== true) return 0;
      const { rows: tasks } = await sql<Task>`
        select seq, tenant, memory_id from index_task order by seq limit ${batch}`.execute(rows);
      if (tasks.length > 0) await this.#do(rows, tasks);
      return tasks.length;
    });
  }

  async #run(): Promise<void> {
    let pause: number = pauses.failed;
    while (!this.#stop.signal.aborted) {
      try {
        const done = await this.step();
        this.#failure = null;
        this.#indexed += done;
        pause = pauses.failed;
        if (done === 0) await this.#idle(pauses.idle);
      } catch (error) {
        if (this.#failure === null) this.#options.log.warn({ reason: reasonOf(error) }, 'memories cannot be indexed');
        this.#failure = reasonOf(error);
        await this.#idle(pause);
        pause = Math.min(pause * 2, pauses.longest);
      }
    }
  }

  async #idle(pause: number): Promise<void> {
    const { signal } = this.#stop;
    await Promise.race([this.#wake.promise, sleep(pause, undefined, { signal }).catch(() => undefined)]);
    this.#wake = Promise.withResolvers<void>();
  }

  async #do(rows: Kysely<Tables>, tasks: readonly Task[]): Promise<void> {
    const { vectors } = this.#options;
    const ids = [...new Set(tasks.map(({ memory_id }) => memory_id))];
    const present = await this.#rowsOf(rows, tasks);
    const kept = await this.#withoutDuplicates(rows, await this.#embed(present));
    for (const [tenant, some] of Map.groupBy(kept, ({ row }) => row.tenant)) {
      await vectors.upsert(tenant, some.map(pointOf));
    }
    const upserted = new Set(kept.map(({ row }) => row.id));
    const gone = ids.filter((id) => !upserted.has(id));
    if (gone.length > 0) await this.#remove(rows, tasks, gone);
    await sql`delete from index_task where seq = any(${tasks.map(({ seq }) => seq)}::bigint[])`.execute(rows);
  }

  /** What was forgotten while the vector store was away is proven to be gone, as a deletion in a request is. */
  async #remove(rows: Kysely<Tables>, tasks: readonly Task[], gone: readonly string[]): Promise<void> {
    const { vectors } = this.#options;
    const owed = await owedAmong(
      rows,
      tasks.filter(({ memory_id }) => gone.includes(memory_id)),
    );
    if (owed.length === 0) return vectors.remove(gone);
    const wiped = await wipe(rows, vectors, gone);
    if (!isWiped(wiped)) {
      const { points } = wiped.vectors;
      throw new Error(`the vector store still has forgotten memories: ${JSON.stringify(points)}`);
    }
    for (const [tenant, some] of Map.groupBy(owed, (each) => each.tenant)) {
      const ids = some.map(({ memory_id }) => memory_id);
      await appendEvents(rows, wipedEvents(tenant, ownWork('indexer'), ids));
    }
  }

  async #rowsOf(rows: Kysely<Tables>, tasks: readonly Task[]): Promise<readonly Row[]> {
    const { rows: found } = await sql<Row>`
      select m.tenant, m.id, owner, team, persona, session_id, kind, text, m.created_at, expires_at
      from memory m
      join unnest(${tasks.map(({ tenant }) => tenant)}::text[], ${tasks.map(({ memory_id }) => memory_id)}::uuid[])
        as task (tenant, id) on m.tenant = task.tenant and m.id = task.id
      where expires_at is null or expires_at > clock_timestamp()`.execute(rows);
    return [...new Map(found.map((row) => [row.id, row])).values()];
  }

  /** One text that the model refuses must not hold up all others: that memory is found by its words only. */
  async #embed(rows: readonly Row[]): Promise<readonly Embedded[]> {
    const { embeddings, log } = this.#options;
    try {
      const vectors = await embeddings.embed(rows.map(({ text }) => text));
      return rows.map((row, place) => ({ row, vector: vectors[place] ?? [] }));
    } catch (error) {
      if (!isRefused(error)) throw error;
      const [row] = rows;
      if (rows.length > 1) return (await Promise.all(rows.map((each) => this.#embed([each])))).flat();
      log.error({ tenant: row?.tenant, memory: row?.id, reason: reasonOf(error) }, 'the model takes no such text');
      return [];
    }
  }

  /** Facts that say what another one of their scope says already are marked, and get no vector. */
  async #withoutDuplicates(rows: Kysely<Tables>, embedded: readonly Embedded[]): Promise<readonly Embedded[]> {
    const kept: Embedded[] = [];
    for (const each of embedded) {
      const original = each.row.kind === 'episodic' ? null : await this.#nearest(each, kept);
      if (original === null) kept.push(each);
      await sql`
        update memory set duplicate_of = ${original}::uuid
        where tenant = ${each.row.tenant} and id = ${each.row.id} and duplicate_of is distinct from ${original}::uuid`.execute(
        rows,
      );
    }
    return kept;
  }

  async #nearest({ row, vector }: Embedded, kept: readonly Embedded[]): Promise<string | null> {
    const { vectors, nearDuplicate = 0.985 } = this.#options;
    const same = kept.find((other) => sharesScope(other.row, row) && cosine(other.vector, vector) >= nearDuplicate);
    if (same !== undefined) return same.row.id;
    await vectors.ensure(row.tenant);
    const scope = {
      tenant: row.tenant,
      visible: { owner: row.owner },
      filter: { kinds: [row.kind], persona: row.persona },
    };
    const found = await vectors.search(scope, vector, 4, nearDuplicate);
    const others = found.map(({ id }) => id).filter((id) => id !== row.id);
    return others.length === 0 ? null : this.#originalAmong(row, others);
  }

  /** Postgres decides which of the candidates is there, of the same scope, older, and no duplicate itself. */
  async #originalAmong(row: Row, ids: readonly string[]): Promise<string | null> {
    const { rows } = await sql<{ id: string }>`
      select id from memory
      where tenant = ${row.tenant} and id = any(${[...ids]}::uuid[]) and owner = ${row.owner} and kind = ${row.kind}
        and team is not distinct from ${row.team} and persona is not distinct from ${row.persona}
        and session_id is not distinct from ${row.session_id}::uuid and duplicate_of is null
        and (created_at, id) < (${row.created_at}::timestamptz, ${row.id}::uuid)
      order by created_at limit 1`.execute(this.#options.database.of(row.tenant));
    return rows[0]?.id ?? null;
  }
}

const sharesScope = (a: Row, b: Row): boolean =>
  a.tenant === b.tenant &&
  a.owner === b.owner &&
  a.team === b.team &&
  a.persona === b.persona &&
  a.session_id === b.session_id &&
  a.kind === b.kind;

const pointOf = ({ row, vector }: Embedded): Point => ({ id: row.id, vector, payload: payloadOf(row) });

const payloadOf = (row: Row): PointPayload => ({
  tenant: row.tenant,
  owner: row.owner,
  team: row.team ?? '',
  persona: row.persona ?? '',
  session_id: row.session_id ?? '',
  kind: row.kind,
  created_at: row.created_at.getTime(),
  expires_at: row.expires_at?.getTime() ?? never,
});
