import { appendEvents, type Logger, reasonOf } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import type { Database, MemoryKind, Tables } from './database.ts';
import { cosine, type Embeddings, isRefused } from './embeddings.ts';
import { ownWork, wipedEvents } from './memory-events.ts';
import type { Scope } from './scope.ts';
import { never, type PointPayload } from './vector-filter.ts';
import type { Point, VectorStore } from './vector-store.ts';
import { isWiped, owedAmong, wipe } from './wipe.ts';

/** Options of {@link Indexer}. */
export interface IndexerOptions {
  readonly database: Database;
  readonly embeddings: Pick<Embeddings, 'embed'>;
  readonly vectors: Pick<VectorStore, 'upsert' | 'remove' | 'searchMany' | 'present' | 'dropSnapshots'>;
  readonly log: Logger;
  /** Cosine from which on two facts of the same scope say the same. @default 0.985 */
  readonly nearDuplicate?: number;
  /** The most memories of one batch; a deletion waits for the batch under way. @default 64 */
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

/** Between two looks at the tasks of which nobody told: after work, and twice as long after each look for nothing. */
const pauses = { idle: 1000, longestIdle: 8000, failed: 200, longest: 5000 } as const;

const defaultBatch = 64;

/** Nearest points that may say the same. */
const candidates = 4;

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
  readonly duplicate_of: string | null;
  readonly created_at: Date;
  readonly expires_at: Date | null;
}

/** A task, and its memory where that still is. */
type TaskRow = Task & ({ readonly memory: null } | ({ readonly memory: string } & Row));

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
  #wake = Promise.withResolvers<boolean>();
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
    this.#wake.resolve(true);
  }

  /** Ends after the batch under way; what is not done stays a task. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake.resolve(true);
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
    return (await this.#attempt()) ?? 0;
  }

  /** {@link step}; undefined when another one works. */
  async #attempt(): Promise<number | undefined> {
    const { database, batch = defaultBatch } = this.#options;
    return database.platform.transaction().execute(async (rows) => {
      const { rows: locks } = await sql<{ held: boolean }>`
        select pg_try_advisory_xact_lock(${lock.space}, ${lock.index}) as held`.execute(rows);
      if (locks[0]?.held !== true) return undefined;
      // A statement of its own: what it sees is as of after the lock.
      const { rows: tasks } = await sql<TaskRow>`
        select seq, task.tenant, memory_id, m.id as memory, m.id, owner, team, persona, session_id, kind, text,
          duplicate_of, m.created_at, expires_at
        from (select seq, tenant, memory_id from index_task order by seq limit ${batch}) task
        left join memory m on m.tenant = task.tenant and m.id = task.memory_id
          and (expires_at is null or expires_at > clock_timestamp())
        order by seq`.execute(rows);
      if (tasks.length > 0) await this.#do(rows, tasks);
      return tasks.length;
    });
  }

  async #run(): Promise<void> {
    const { batch = defaultBatch } = this.#options;
    let [failed, idle, told]: [number, number, boolean] = [pauses.failed, pauses.idle, false];
    while (!this.#stop.signal.aborted) {
      try {
        const done: number | undefined = told || (await this.#waiting()) ? await this.#attempt() : 0;
        this.#failure = null;
        this.#indexed += done ?? 0;
        failed = pauses.failed;
        idle = done === 0 ? Math.min(idle * 2, pauses.longestIdle) : pauses.idle;
        told = done === batch || (await this.#idle(idle));
      } catch (error) {
        if (this.#failure === null) this.#options.log.warn({ reason: reasonOf(error) }, 'memories cannot be indexed');
        this.#failure = reasonOf(error);
        await this.#idle(failed);
        failed = Math.min(failed * 2, pauses.longest);
      }
    }
  }

  /** Waits. @returns whether somebody has told of work meanwhile */
  async #idle(pause: number): Promise<boolean> {
    const { promise, resolve } = this.#wake;
    const timer = setTimeout(() => resolve(false), pause);
    const told = await promise;
    clearTimeout(timer);
    this.#wake = Promise.withResolvers<boolean>();
    return told;
  }

  async #do(rows: Kysely<Tables>, tasks: readonly TaskRow[]): Promise<void> {
    const { vectors } = this.#options;
    const ids = [...new Set(tasks.map(({ memory_id }) => memory_id))];
    const found = tasks.filter((task): task is Task & { memory: string } & Row => task.memory !== null);
    const present = [...new Map(found.map((row) => [row.id, row])).values()];
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

  /** One text that the model refuses must not hold up all others: that memory is found by its words only. */
  async #embed(rows: readonly Row[]): Promise<readonly Embedded[]> {
    const { embeddings, log } = this.#options;
    try {
      const tenants = new Set(rows.map(({ tenant }) => tenant));
      const tenant = tenants.size === 1 ? rows[0]?.tenant : undefined;
      const vectors = await embeddings.embed(
        rows.map(({ text }) => text),
        { tenant },
      );
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
    const others = await this.#near(
      rows,
      embedded.filter(({ row }) => row.kind !== 'episodic'),
    );
    const kept: Embedded[] = [];
    const marked: { readonly row: Row; readonly original: string | null }[] = [];
    for (const each of embedded) {
      const { row } = each;
      const original = row.kind === 'episodic' ? null : this.#originalOf(each, kept, others.get(row.id) ?? []);
      if (original === null) kept.push(each);
      if (original !== row.duplicate_of) marked.push({ row, original });
    }
    if (marked.length > 0) await mark(rows, marked);
    return kept;
  }

  #originalOf({ row, vector }: Embedded, kept: readonly Embedded[], near: readonly Row[]): string | null {
    const { nearDuplicate = 0.985 } = this.#options;
    const same = kept.find((other) => sharesScope(other.row, row) && cosine(other.vector, vector) >= nearDuplicate);
    if (same !== undefined) return same.row.id;
    const originals = near.filter((other) => sharesScope(other, row) && isOlder(other, row));
    return originals.toSorted((a, b) => a.created_at.getTime() - b.created_at.getTime())[0]?.id ?? null;
  }

  /** Rows of the points that are near, by the id of what they are near to. Points only name them: Postgres says what they are. */
  async #near(rows: Kysely<Tables>, facts: readonly Embedded[]): Promise<ReadonlyMap<string, readonly Row[]>> {
    const { vectors, nearDuplicate = 0.985 } = this.#options;
    const pairs: { readonly of: string; readonly tenant: string; readonly id: string }[] = [];
    for (const [tenant, some] of Map.groupBy(facts, ({ row }) => row.tenant)) {
      const searches = some.map(({ row, vector }) => ({ scope: scopeOf(row), vector }));
      const found = await vectors.searchMany(tenant, searches, candidates, nearDuplicate);
      some.forEach(({ row }, place) => {
        for (const id of found[place] ?? []) if (id !== row.id) pairs.push({ of: row.id, tenant, id });
      });
    }
    if (pairs.length === 0) return new Map();
    const { rows: others } = await sql<Row & { of: string }>`
      select near.of, m.tenant, m.id, owner, team, persona, session_id, kind, text, duplicate_of, created_at, expires_at
      from unnest(${pairs.map((pair) => pair.of)}::text[], ${pairs.map(({ tenant }) => tenant)}::text[],
        ${pairs.map(({ id }) => id)}::uuid[]) near (of, tenant, id)
      join memory m on m.tenant = near.tenant and m.id = near.id where duplicate_of is null`.execute(rows);
    return Map.groupBy(others, ({ of }) => of);
  }

  /** Whether there may be work, asked without a transaction. */
  async #waiting(): Promise<boolean> {
    const { rows } = await sql<{ waiting: boolean }>`
      select exists (select 1 from index_task) as waiting`.execute(this.#options.database.platform);
    return rows[0]?.waiting === true;
  }
}

async function mark(
  rows: Kysely<Tables>,
  marked: readonly { readonly row: Row; readonly original: string | null }[],
): Promise<void> {
  await sql`
    update memory set duplicate_of = marked.original
    from unnest(${marked.map(({ row }) => row.tenant)}::text[], ${marked.map(({ row }) => row.id)}::uuid[],
      ${marked.map(({ original }) => original)}::uuid[]) marked (tenant, id, original)
    where memory.tenant = marked.tenant and memory.id = marked.id`.execute(rows);
}

const scopeOf = (row: Row): Scope => ({
  tenant: row.tenant,
  visible: { owner: row.owner },
  filter: { kinds: [row.kind], persona: row.persona },
});

const isOlder = (a: Row, b: Row): boolean => {
  const [first, second] = [a.created_at.getTime(), b.created_at.getTime()];
  return first < second || (first === second && a.id < b.id);
};

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
