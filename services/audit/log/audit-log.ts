import type { TenantDatabase } from '@somagent/kit';
import { type Kysely, sql, type Transaction } from 'kysely';
import { CompactRange } from '../merkle/index.ts';
import { type Database, storedLevel } from './database.ts';
import { type Leaf, underOwnId } from './leaf.ts';

/** `<topic>/<partition>` → the next offset to read. */
export type Offsets = Readonly<Record<string, string>>;

/** The tree as it is stored. */
export interface TreeHead {
  readonly size: number;
  readonly root: Buffer;
}

/** What became of the leaves of one append. */
export interface Appended {
  /** The tree with them in it; a later one when other appends were in the same transaction. */
  readonly head: TreeHead;
  /** How many were in the log before. */
  readonly duplicates: number;
  /** How many came with the id of a different event and were kept under an id of their own. */
  readonly conflicts: number;
}

/** Options of {@link AuditLog}. */
export interface AuditLogOptions {
  /** The most leaves of one transaction. @default 8192 */
  readonly batchLimit?: number;
}

interface State {
  readonly batch: number;
  readonly range: CompactRange;
  readonly offsets: Offsets;
}

interface Waiting {
  readonly leaves: readonly Leaf[];
  readonly offsets: Offsets;
  readonly done: (appended: Appended) => void;
  readonly failed: (error: unknown) => void;
}

/**
 * Appends to the log. Appends that wait while a transaction runs go together into the next one: leaves, subtrees, tree
 * head and the offsets of the consumer are there together or not at all.
 *
 * Two writers can't harm each other: each transaction inserts the batch after the one that it builds on, and the key of
 * the batch refuses the second of them, which then starts from what is stored.
 */
export class AuditLog {
  readonly #db: Kysely<Database>;
  readonly #limit: number;
  #waiting: Waiting[] = [];
  #state: State | undefined;
  #running = false;

  constructor(database: TenantDatabase<Database>, options: AuditLogOptions = {}) {
    this.#db = database.platform;
    this.#limit = options.batchLimit ?? 8192;
  }

  /** The newest stored head and offsets, read from the database. */
  async position(): Promise<TreeHead & { readonly offsets: Offsets }> {
    const { range, offsets } = await loadState(this.#db);
    return { size: range.size, root: range.root(), offsets };
  }

  /**
   * Appends leaves in their order, except those that are in the log already.
   * @param offsets where the consumer goes on, stored with the leaves
   * @returns when they are durable
   * @throws the database's error; whether the leaves are in the log is then unknown, and appending them again is safe
   */
  append(leaves: readonly Leaf[], offsets: Offsets = {}): Promise<Appended> {
    const { promise, resolve, reject } = Promise.withResolvers<Appended>();
    this.#waiting.push({ leaves, offsets, done: resolve, failed: reject });
    if (!this.#running) void this.#drain();
    return promise;
  }

  async #drain(): Promise<void> {
    this.#running = true;
    // One turn of the event loop, so that appends of the same moment share a transaction.
    await new Promise(setImmediate);
    while (this.#waiting.length > 0) await this.#commitNext();
    this.#running = false;
  }

  async #commitNext(): Promise<void> {
    const group = this.#takeGroup();
    try {
      const state = this.#state ?? (await loadState(this.#db));
      const leaves = group.flatMap((each) => each.leaves);
      const offsets = Object.assign({}, state.offsets, ...group.map((each) => each.offsets)) as Offsets;
      const work = (transaction: Transaction<Database>) => store(transaction, state, leaves, offsets);
      const { next, ...counts } = await this.#db.transaction().execute(work);
      this.#state = next;
      const appended = { head: { size: next.range.size, root: next.range.root() }, ...counts };
      for (const { done } of group) done(appended);
    } catch (error) {
      // What is stored now is not known: the next append reads it.
      this.#state = undefined;
      for (const { failed } of group) failed(error);
    }
  }

  #takeGroup(): Waiting[] {
    const group: Waiting[] = [];
    for (let count = 0; this.#waiting[0] !== undefined; ) {
      count += this.#waiting[0].leaves.length;
      if (group.length > 0 && count > this.#limit) break;
      group.push(this.#waiting.shift() as Waiting);
    }
    return group;
  }
}

async function loadState(db: Kysely<Database>): Promise<State> {
  const newest = await db.selectFrom('audit_batch').selectAll().orderBy('id', 'desc').limit(1).executeTakeFirst();
  if (newest === undefined) return { batch: 0, range: new CompactRange(), offsets: {} };
  const { id, size, frontier, offsets } = newest;
  return { batch: Number(id), range: CompactRange.decode(Number(size), frontier), offsets };
}

async function store(db: Transaction<Database>, state: State, leaves: readonly Leaf[], offsets: Offsets) {
  const { fresh, duplicates, conflicts } = await withoutKnown(db, leaves);
  const range = state.range.copy();
  const nodes: { level: number; index: string; hash: Buffer }[] = [];
  for (const { hash } of fresh) {
    range.append(hash, ({ level, index }, node) => {
      if (level >= storedLevel) nodes.push({ level, index: String(index), hash: node });
    });
  }
  const next: State = { batch: state.batch + 1, range, offsets };
  await db
    .insertInto('audit_batch')
    .values({
      id: String(next.batch),
      size: String(range.size),
      root: range.root(),
      frontier: range.encode(),
      offsets: JSON.stringify(offsets) as unknown as Record<string, string>,
    })
    .execute();
  await insertLeaves(db, state.range.size, fresh);
  if (nodes.length > 0) await db.insertInto('audit_node').values(nodes).execute();
  return { next, duplicates, conflicts };
}

/**
 * One statement for any number of leaves, an array for each short column. Texts and hashes travel as bytes in one piece:
 * as arrays of text they would be escaped here and parsed there, which takes longer than to store them.
 */
async function insertLeaves(db: Transaction<Database>, first: number, leaves: readonly Leaf[]): Promise<void> {
  if (leaves.length === 0) return;
  const column = <Value>(pick: (leaf: Leaf) => Value) => leaves.map(pick);
  const texts = column(({ text }) => Buffer.from(text));
  const ends = runningSum(texts.map(({ length }) => length));
  await sql`
    insert into audit_leaf (index, event_id, tenant, request_id, topic, leaf, hash)
    select ${first}::bigint + n - 1, event_id, tenant, request_id, topic,
      convert_from(substring(${Buffer.concat(texts)}::bytea from after - length + 1 for length), 'UTF8'),
      substring(${Buffer.concat(column(({ hash }) => hash))}::bytea from (32 * n - 31)::int for 32)
    from unnest(
      ${column(({ eventId }) => eventId)}::uuid[], ${column(({ tenant }) => tenant)}::text[],
      ${column(({ requestId }) => requestId)}::text[], ${column(({ topic }) => topic)}::text[],
      ${texts.map(({ length }) => length)}::int[], ${ends}::int[]
    ) with ordinality as fresh (event_id, tenant, request_id, topic, length, after, n)`.execute(db);
}

function runningSum(lengths: readonly number[]): number[] {
  let sum = 0;
  return lengths.map((length) => {
    sum += length;
    return sum;
  });
}

/** Leaves that are not in the log yet, each once. */
async function withoutKnown(db: Transaction<Database>, leaves: readonly Leaf[]) {
  const known = await hashesOf(db, leaves);
  const fresh: Leaf[] = [];
  const conflicting: Leaf[] = [];
  for (const leaf of leaves) {
    const before = known.get(leaf.eventId);
    if (before === undefined) {
      known.set(leaf.eventId, leaf.hash);
      fresh.push(leaf);
    } else if (!before.equals(leaf.hash)) {
      conflicting.push(underOwnId(leaf));
    }
  }
  const kept = await unknownOf(db, conflicting);
  const duplicates = leaves.length - fresh.length - kept.length;
  return { fresh: [...fresh, ...kept], duplicates, conflicts: kept.length };
}

/** Of leaves whose id is made from their content: the same id is the same leaf. */
async function unknownOf(db: Transaction<Database>, leaves: readonly Leaf[]): Promise<Leaf[]> {
  if (leaves.length === 0) return [];
  const known = await hashesOf(db, leaves);
  return [...new Map(leaves.map((leaf) => [leaf.eventId, leaf])).values()].filter(({ eventId }) => !known.has(eventId));
}

async function hashesOf(db: Transaction<Database>, leaves: readonly Leaf[]): Promise<Map<string, Buffer>> {
  if (leaves.length === 0) return new Map();
  const ids = leaves.map(({ eventId }) => eventId);
  const { rows } = await sql<{ event_id: string; hash: Buffer }>`
    select event_id, hash from audit_leaf where event_id = any(${ids}::uuid[])`.execute(db);
  return new Map(rows.map(({ event_id, hash }) => [event_id, hash]));
}
