import { quotaMigration } from '@somagent/governance/quota-migration.ts';
import { isolateTenants, requireIsolation } from '@somagent/kit';
import { outboxMigration } from '@somagent/kit/outbox.ts';
import { type Kysely, sql } from 'kysely';
import { type Migration, type MigrationResult, Migrator } from 'kysely/migration';

const tables: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table approval (
        tenant text not null,
        session_id uuid not null,
        approved_by text not null,
        approved_at timestamptz(3) not null default clock_timestamp(),
        reason text not null,
        withdrawn_by text,
        withdrawn_at timestamptz(3),
        primary key (tenant, session_id)
      )`.execute(db);
    await sql`
      create table run (
        tenant text not null,
        id uuid not null,
        state text not null default 'queued'
          check (state in ('queued', 'running', 'passed', 'refused', 'stopped', 'failed')),
        requester jsonb not null,
        request_id text not null,
        recipe jsonb not null,
        attempts integer not null default 0,
        reasons text[] not null default '{}',
        gate jsonb,
        lineage jsonb,
        created_at timestamptz(3) not null default clock_timestamp(),
        ended_at timestamptz(3),
        primary key (tenant, id),
        -- No model passes without its lineage and the figures of the gate, where no code can forget it.
        check (state <> 'passed' or (lineage is not null and (gate ->> 'passed')::boolean))
      )`.execute(db);
    await sql`create unique index run_open on run (tenant) where state in ('queued', 'running')`.execute(db);
    await sql`create index run_newest on run (tenant, created_at desc, id desc)`.execute(db);
    await sql`
      create table promotion (
        tenant text not null,
        number integer not null,
        run_id uuid not null,
        model_hash text not null,
        promoted_by text not null,
        reason text not null,
        promoted_at timestamptz(3) not null default clock_timestamp(),
        primary key (tenant, number),
        foreign key (tenant, run_id) references run (tenant, id)
      )`.execute(db);
    for (const table of ['approval', 'run', 'promotion']) await isolateTenants(db, table);
  },
};

/** Every migration, by name; names sort in the order in which they apply, and a released one never changes. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-outbox': outboxMigration,
  '0002-training': tables,
  '0003-quota': quotaMigration,
};

/**
 * Brings the schema to the newest version, in one transaction under a lock: any number of pods may run this at once.
 * @throws the error of the migration that failed.
 */
export async function migrate<Rows>(db: Kysely<Rows>): Promise<readonly MigrationResult[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...migrations }) } });
  const { error, results } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
  await requireIsolation(db);
  return results ?? [];
}
