import { createHash } from 'node:crypto';
import { outboxInsert } from '@somagent/kit';
import { sql } from 'kysely';
import pg from 'pg';
import type { Database, MemoryKind } from './database.ts';
import { type Origin, storedEvent } from './memory-events.ts';
import { rowsOf, type Scope } from './scope.ts';

/** What shall be remembered. */
export interface NewMemory {
  readonly tenant: string;
  readonly id: string;
  readonly owner: string;
  readonly team: string | null;
  readonly persona: string | null;
  readonly sessionId: string | null;
  readonly kind: MemoryKind;
  readonly text: string;
  readonly importance: number;
  readonly expiresAt: Date | null;
}

/** A memory as clients see it. */
export interface Memory {
  readonly id: string;
  readonly owner: string;
  readonly team: string | null;
  readonly persona: string | null;
  readonly sessionId: string | null;
  readonly kind: MemoryKind;
  readonly text: string;
  readonly importance: number;
  /** How often the same was stored. */
  readonly seen: number;
  readonly createdAt: string;
  readonly expiresAt: string | null;
}

/** What became of a memory that was to be stored. */
export interface Stored {
  readonly memory: Memory;
  /** False where the same was known already. */
  readonly created: boolean;
}

/** It was stored before, and then forgotten: a repetition must not bring it back. */
export class AlreadyForgotten extends Error {
  constructor(id: string) {
    super(`memory ${id} was forgotten and is not stored again`);
    this.name = 'AlreadyForgotten';
  }
}

/** The same words in another layout are the same content. */
export const contentHash = (text: string): Buffer =>
  createHash('sha256').update(text.normalize('NFKC').replaceAll(/\s+/g, ' ').trim().toLowerCase()).digest();

/**
 * The id of what a source (a turn) had remembered: always the same, in no two tenants alike, so that a repetition finds
 * it. A name-based UUID, RFC 9562 section 5.8.
 */
export function sourcedId(tenant: string, owner: string, source: string): string {
  const hash = createHash('sha256')
    .update(JSON.stringify(['memory', tenant, owner, source]))
    .digest();
  hash.writeUInt8((hash.readUInt8(6) & 0x0f) | 0x80, 6);
  hash.writeUInt8((hash.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = hash.toString('hex', 0, 16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Reads and writes memories in Postgres, the source of truth. */
export class Memories {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /**
   * Stores a memory, what the indexer has to do for it and its event, in one statement. What is known already, by id or
   * by content within its scope, is noted as seen again.
   * @throws AlreadyForgotten
   */
  async store(memory: NewMemory, origin: Origin): Promise<Stored> {
    try {
      return await this.#store(memory, origin);
    } catch (error) {
      // The same request at the same time was faster: now it is known.
      if (isSameId(error)) return this.#store(memory, origin);
      throw error;
    }
  }

  async #store(memory: NewMemory, origin: Origin): Promise<Stored> {
    const { tenant, id } = memory;
    const { rows } = await sql<MemoryRow & { created: boolean }>`
      with known as (
        select ${columns} from memory where tenant = ${tenant} and id = ${id}::uuid
      ), stored as (
        insert into memory (tenant, id, owner, team, persona, session_id, kind, text, content_hash, importance, expires_at)
        select ${tenant}, ${id}::uuid, ${memory.owner}, ${memory.team}, ${memory.persona}, ${memory.sessionId}::uuid,
          ${memory.kind}, ${memory.text}, ${contentHash(memory.text)}, ${memory.importance}::real, ${memory.expiresAt}::timestamptz
        where not exists (select 1 from known)
          and not exists (select 1 from forgotten where tenant = ${tenant} and memory_id = ${id}::uuid)
        on conflict on constraint memory_content do update
        set seen = memory.seen + 1, importance = greatest(memory.importance, excluded.importance),
          -- Null lasts for ever, and longer counts.
          expires_at = case when memory.expires_at is null or excluded.expires_at is null then null
            else greatest(memory.expires_at, excluded.expires_at) end
        returning ${columns}, memory.xmax = 0 as created
      ), task as (
        insert into index_task (tenant, memory_id) select ${tenant}, id from stored
      ), outgoing as (${outboxInsert([storedEvent(tenant, origin, factsOf(memory))], sql`exists (select 1 from stored where created)`)})
      select * from stored union all select known.*, false from known`.execute(this.#db.of(tenant));
    const [row] = rows;
    if (row === undefined) throw new AlreadyForgotten(id);
    return { memory: memoryOf(row), created: row.created };
  }

  /** One memory; undefined when there is none of that id in the tenant. */
  async get(tenant: string, id: string): Promise<Memory | undefined> {
    const { rows } = await sql<MemoryRow>`
      select ${columns} from memory
      where tenant = ${tenant} and id = ${id}::uuid and (expires_at is null or expires_at > clock_timestamp())`.execute(
      this.#db.of(tenant),
    );
    const [row] = rows;
    return row && memoryOf(row);
  }

  /** Those of the ids that are in the scope, in no order. Whatever named the ids, the scope decides. */
  async within(scope: Scope, ids: readonly string[]): Promise<readonly Memory[]> {
    const { rows } = await sql<MemoryRow>`
      select ${columns} from memory where id = any(${[...ids]}::uuid[]) and ${rowsOf(scope)}`.execute(
      this.#db.of(scope.tenant),
    );
    return rows.map(memoryOf);
  }

  /** The newest memories of a scope, oldest first. */
  async newest(scope: Scope, limit: number): Promise<readonly Memory[]> {
    const { rows } = await sql<MemoryRow>`
      select ${columns} from memory where ${rowsOf(scope)} and duplicate_of is null
      order by created_at desc, id desc limit ${limit}`.execute(this.#db.of(scope.tenant));
    return rows.map(memoryOf).reverse();
  }

  /** How many memories a scope has. */
  async count(scope: Scope): Promise<number> {
    const { rows } = await sql<{ count: number }>`
      select count(*)::integer as count from memory where ${rowsOf(scope)}`.execute(this.#db.of(scope.tenant));
    return rows[0]?.count ?? 0;
  }

  /** A page of a scope, by id. @param after the last id of the page before; undefined for the first */
  async page(scope: Scope, after: string | undefined, limit: number): Promise<readonly Memory[]> {
    const later = after === undefined ? sql`true` : sql`id > ${after}::uuid`;
    const { rows } = await sql<MemoryRow>`
      select ${columns} from memory where ${rowsOf(scope)} and ${later} order by id limit ${limit}`.execute(
      this.#db.of(scope.tenant),
    );
    return rows.map(memoryOf);
  }
}

const isSameId = (error: unknown): boolean =>
  error instanceof pg.DatabaseError && error.code === '23505' && error.constraint === 'memory_pkey';

interface MemoryRow {
  readonly id: string;
  readonly owner: string;
  readonly team: string | null;
  readonly persona: string | null;
  readonly session_id: string | null;
  readonly kind: MemoryKind;
  readonly text: string;
  readonly importance: number;
  readonly seen: number;
  readonly created_at: Date;
  readonly expires_at: Date | null;
}

const columns = sql.raw(
  ['id', 'owner', 'team', 'persona', 'session_id', 'kind', 'text', 'importance', 'seen', 'created_at', 'expires_at']
    .map((name) => `memory.${name}`)
    .join(', '),
);

const memoryOf = (row: MemoryRow): Memory => ({
  id: row.id,
  owner: row.owner,
  team: row.team,
  persona: row.persona,
  sessionId: row.session_id,
  kind: row.kind,
  text: row.text,
  importance: row.importance,
  seen: row.seen,
  createdAt: row.created_at.toISOString(),
  expiresAt: row.expires_at?.toISOString() ?? null,
});

const factsOf = ({ id, owner, team, persona, sessionId, kind, text, expiresAt }: NewMemory) => ({
  memoryId: id,
  owner,
  team,
  persona,
  sessionId,
  kind,
  length: text.length,
  expiresAt: expiresAt?.toISOString() ?? null,
});
