import { quotaMigration } from '@somagent/governance/quota-migration.ts';
import { isolateTenants, outboxMigration } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import { type Migration, type MigrationResult, Migrator } from 'kysely/migration';

const tables: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table memory (
        tenant text not null,
        id uuid not null,
        owner text not null check (owner <> ''),
        team text,
        persona text,
        session_id uuid,
        kind text not null check (kind in ('episodic', 'semantic', 'summary')),
        text text not null check (text <> ''),
        content_hash bytea not null check (length(content_hash) = 32),
        importance real not null check (importance between 0 and 1),
        seen integer not null default 1,
        duplicate_of uuid,
        created_at timestamptz(3) not null default clock_timestamp(),
        expires_at timestamptz(3),
        search tsvector not null generated always as (to_tsvector('english', text)) stored,
        primary key (tenant, id),
        -- The same, said again in the same scope, is the same memory.
        constraint memory_content unique nulls not distinct
          (tenant, owner, team, persona, session_id, kind, content_hash)
      )`.execute(db);
    // Row-level security lets only leakproof operators use an index: equality does, a full-text match does not. So a
    // scope is found by an index, and the words are matched within it.
    for (const column of ['owner', 'team', 'persona', 'session_id', 'duplicate_of']) {
      await sql`create index ${sql.ref(`memory_${column}`)} on memory (tenant, ${sql.ref(column)})`.execute(db);
    }
    await sql`create index memory_expiry on memory (expires_at) where expires_at is not null`.execute(db);
    await sql`
      create table index_task (
        seq bigint generated always as identity primary key,
        tenant text not null,
        memory_id uuid not null,
        created_at timestamptz(3) not null default clock_timestamp()
      )`.execute(db);
    await sql`create index index_task_memory on index_task (tenant, memory_id)`.execute(db);
    // Ids only: whatever stores a forgotten turn again, late, must not bring it back.
    await sql`
      create table forgotten (
        tenant text not null,
        memory_id uuid not null,
        forgotten_at timestamptz(3) not null default clock_timestamp(),
        primary key (tenant, memory_id)
      )`.execute(db);
    for (const table of ['memory', 'index_task', 'forgotten']) await isolateTenants(db, table);
  },
};

/**
 * A second door to the same rows, for large scopes: the words that are asked for stand in its policy, beside the tenant.
 * A condition of a policy comes before any other, so both lead an index that the planner may use; a full-text match in a
 * WHERE is none of the leakproof operators that it would let past row-level security. Nobody writes through this door, the
 * platform's own work has no key to it, and without words it shows nothing.
 * Source: https://www.postgresql.org/docs/15/ddl-inherit.html, "the parent table's row security policies are applied to
 * rows coming from child tables during an inherited query".
 */
const byWords: Migration = {
  async up(db: Kysely<unknown>) {
    const statements = [
      sql`create extension if not exists btree_gin`,
      sql`create table memory_by_words (like memory including generated)`,
      sql`alter table memory inherit memory_by_words`,
      sql`alter table memory_by_words enable row level security`,
      sql`alter table memory_by_words force row level security`,
      sql`
        create policy matching_rows on memory_by_words for select using (
          tenant = nullif(current_setting('soma.tenant', true), '')
          and search @@ nullif(current_setting('soma.words', true), '')::tsquery
        )`,
      // Without a list of what waits to be sorted in: every search would have to read it.
      sql`create index memory_search on memory using gin (tenant, search) with (fastupdate = off)`,
      sql`
        create function memory_ask(asked tsquery) returns tsquery language plpgsql volatile as $$
          begin
            perform set_config('soma.words', asked::text, true);
            return asked;
          end
        $$`,
    ];
    for (const statement of statements) await statement.execute(db);
  },
};

/** Whether the vector store has proven a deletion. What was forgotten before is deleted there once more. */
const owedDeletions: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table forgotten add column wiped_at timestamptz(3)`.execute(db);
    await sql`create index forgotten_owed on forgotten (tenant) where wiped_at is null`.execute(db);
    await sql`select set_config('soma.tenant', '*', true)`.execute(db);
    await sql`insert into index_task (tenant, memory_id) select tenant, memory_id from forgotten`.execute(db);
    await sql`select set_config('soma.tenant', '', true)`.execute(db);
  },
};

/** Every migration, by name; names sort in the order in which they apply, and a released one never changes. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-outbox': outboxMigration,
  '0002-memory': tables,
  '0003-quota': quotaMigration,
  '0004-words': byWords,
  '0005-owed-deletions': owedDeletions,
};

/**
 * Brings the schema to the newest version, in one transaction under a lock: any number of pods may run this at once.
 * @throws the error of the migration that failed.
 */
export async function migrate<Rows>(db: Kysely<Rows>): Promise<readonly MigrationResult[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...migrations }) } });
  const { error, results } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
  return results ?? [];
}
