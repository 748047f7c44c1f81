import { quotaMigration } from '@somagent/governance';
import { tenantSetting } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import { type Migration, type MigrationResult, Migrator } from 'kysely/migration';

const tables = ['audit_leaf', 'audit_node', 'audit_batch', 'audit_checkpoint', 'audit_cosignature'] as const;

const log: Migration = {
  async up(db: Kysely<unknown>) {
    const hash = sql`bytea not null check (octet_length(hash) = 32)`;
    await sql`
      create table audit_leaf (
        index bigint primary key check (index >= 0),
        event_id uuid not null unique,
        tenant text,
        request_id text,
        topic text not null,
        leaf text not null,
        hash ${hash}
      )`.execute(db);
    await sql`create index audit_leaf_tenant on audit_leaf (tenant, index)`.execute(db);
    await sql`create index audit_leaf_request on audit_leaf (request_id) where request_id is not null`.execute(db);
    await sql`
      create table audit_node (
        level smallint not null, index bigint not null, hash ${hash}, primary key (level, index)
      )`.execute(db);
    await sql`
      create table audit_batch (
        id bigint primary key,
        size bigint not null,
        root bytea not null,
        frontier bytea not null,
        offsets jsonb not null,
        committed_at timestamptz(3) not null default clock_timestamp()
      )`.execute(db);
    await sql`
      create table audit_checkpoint (
        size bigint primary key, note text not null, created_at timestamptz(3) not null default clock_timestamp()
      )`.execute(db);
    await sql`
      create table audit_cosignature (
        size bigint not null references audit_checkpoint,
        witness text not null,
        line text not null,
        created_at timestamptz(3) not null default clock_timestamp(),
        primary key (size, witness)
      )`.execute(db);
    await onlyGrow(db);
    await keepTenantsApart(db);
  },
};

/** Refuses every change of a row, whoever asks: the owner and a superuser too, unless they drop the guard first. */
async function onlyGrow(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function audit_refuse() returns trigger language plpgsql as $$
    begin
      raise exception 'the audit log only grows: % of % is refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege', hint = 'append an event that corrects the earlier one';
    end $$`.execute(db);
  for (const table of tables) {
    await sql`
      create trigger audit_only_grows before update or delete or truncate on ${sql.table(table)}
      for each statement execute function audit_refuse()`.execute(db);
    await sql`revoke all on ${sql.table(table)} from public`.execute(db);
  }
}

/** A connection sees the entries of its own tenant; only one that says that it means every tenant writes. */
async function keepTenantsApart(db: Kysely<unknown>): Promise<void> {
  const setting = sql.raw(`nullif(current_setting('${tenantSetting}', true), '')`);
  await sql`alter table audit_leaf enable row level security`.execute(db);
  await sql`alter table audit_leaf force row level security`.execute(db);
  await sql`create policy tenant_rows on audit_leaf for select using (tenant = ${setting})`.execute(db);
  await sql`
    create policy platform_rows on audit_leaf using (${setting} = '*') with check (${setting} = '*')`.execute(db);
}

/** Every migration, by name; names sort in the order in which they apply, and a released one never changes. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-log': log,
  '0002-quota': quotaMigration,
};

/**
 * Brings the schema to the newest version and lets the service's role select and insert in the log, nothing else.
 * @param db a connection of the owner of the database
 * @param role the role that the service connects as; it must exist and not be the owner
 * @throws the error of the migration that failed.
 */
export async function migrate<Tables>(db: Kysely<Tables>, role: string): Promise<readonly MigrationResult[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...migrations }) } });
  const { error, results } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
  await requireOther(db, role);
  const to = sql.id(role);
  await sql`grant usage on schema public to ${to}`.execute(db);
  for (const table of tables) {
    await sql`revoke all on ${sql.table(table)} from ${to}`.execute(db);
    await sql`grant select, insert on ${sql.table(table)} to ${to}`.execute(db);
  }
  // Counts of requests are no records: they do change.
  await sql`grant select, insert, update on quota_window to ${to}`.execute(db);
  await sql`grant select on quota_limit to ${to}`.execute(db);
  return results ?? [];
}

async function requireOther<Tables>(db: Kysely<Tables>, role: string): Promise<void> {
  const { rows } = await sql<{ same: boolean }>`select current_user = ${role} as same`.execute(db);
  if (rows[0]?.same !== false) {
    throw new Error(`role ${role} owns the audit log and so could change it: give the service a role of its own`);
  }
}
