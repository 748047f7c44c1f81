import {
  budgetKeysMigration,
  budgetLeaseMigration,
  budgetMigration,
  grantBudgets,
} from '@somagent/budget/migration.ts';
import { quotaMigration } from '@somagent/governance/quota-migration.ts';
import { isolateTenants, outboxMigration, requireIsolation, tenantSetting } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import { type Migration, type MigrationResult, Migrator } from 'kysely/migration';

const sessions: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table session (
        tenant text not null,
        id uuid not null,
        subject text not null,
        persona text,
        status text not null check (status in ('open', 'closed')),
        close_reason text check (close_reason in ('client', 'idle')),
        last_seq bigint not null default 0,
        created_at timestamptz(3) not null default clock_timestamp(),
        closed_at timestamptz(3),
        primary key (tenant, id)
      )`.execute(db);
    await sql`create index session_newest on session (tenant, created_at desc, id desc)`.execute(db);
    await sql`
      create table turn (
        tenant text not null,
        session_id uuid not null,
        id uuid not null,
        number integer not null,
        prompt text not null,
        answer text not null,
        status text not null check (status in ('running', 'completed', 'cancelled', 'failed')),
        error text,
        attempt integer not null,
        usage jsonb,
        timings jsonb,
        created_at timestamptz(3) not null default clock_timestamp(),
        completed_at timestamptz(3),
        primary key (tenant, session_id, id),
        unique (tenant, session_id, number),
        foreign key (tenant, session_id) references session (tenant, id) on delete cascade
      )`.execute(db);
    await sql`
      create table session_event (
        tenant text not null,
        session_id uuid not null,
        seq bigint not null,
        type text not null,
        turn_id uuid,
        data jsonb not null,
        created_at timestamptz(3) not null default clock_timestamp(),
        primary key (tenant, session_id, seq)
      )`.execute(db);
    await sql`create index session_event_of_turn on session_event (tenant, session_id, turn_id, seq)`.execute(db);
  },
};

const interruption: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table turn add column interrupted boolean not null default false`.execute(db);
  },
};

const tenancy: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table session add column teams text[] not null default '{}'`.execute(db);
    for (const table of tenantTables) await isolateTenants(db, table);
  },
};

const tries: Migration = {
  async up(db: Kysely<unknown>) {
    // Until now each attempt was one more.
    await sql`
      alter table turn add column tries integer not null default 0, add column halts integer not null default 0`.execute(
      db,
    );
    await sql`update turn set tries = attempt`.execute(db);
  },
};

/** Tables with rows of tenants that others may read. */
const tenantTables = ['session', 'turn', 'session_event'] as const;

/** Roles of other services that read here, and nothing else. */
export const readers = {
  /** Of one tenant at a time. */
  gateway: 'sessions_gateway',
  /** Who owns each session, of every tenant: to reconcile relations. */
  relations: 'sessions_relations',
  /** Turns of one tenant at a time, for training: who asked for them stays here. */
  training: 'sessions_training',
} as const;

/** Every migration, by name; names sort in the order in which they apply, and a released one never changes. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-sessions': sessions,
  '0002-interruption': interruption,
  '0003-tries': tries,
  '0004-tenancy': tenancy,
  '0005-outbox': outboxMigration,
  '0006-quota': quotaMigration,
  '0007-budget': budgetMigration,
  '0008-budget-keys': budgetKeysMigration,
  '0009-budget-lease': budgetLeaseMigration,
};

/**
 * Brings the schema to the newest version. Migrations run in one transaction under a lock, so that any number of
 * pods may run this at once, and one that is killed leaves nothing half done.
 * @throws the error of the migration that failed.
 */
export async function migrate<Tables>(db: Kysely<Tables>): Promise<readonly MigrationResult[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...migrations }) } });
  const { error, results } = await migrator.migrateToLatest();
  if (error !== undefined) throw error;
  await db.transaction().execute(grantReading);
  await requireIsolation(db);
  return results ?? [];
}

/** What the readers may see, each time anew: a role may have come after the tables. Absent roles are left out. */
async function grantReading<Tables>(db: Kysely<Tables>): Promise<void> {
  const { rows } = await sql<{ rolname: string }>`
    select rolname from pg_roles where rolname in (${sql.join(Object.values(readers))})`.execute(db);
  const present = new Set(rows.map(({ rolname }) => rolname));
  if (present.has(readers.gateway)) {
    for (const table of tenantTables) {
      await sql`grant select on ${sql.table(table)} to ${sql.ref(readers.gateway)}`.execute(db);
    }
    // Its verdicts wait here while Kafka is away; it can put in and not look in.
    await sql`grant insert, select (id) on outbox to ${sql.ref(readers.gateway)}`.execute(db);
    // It counts its requests here.
    for (const table of ['quota_window', 'quota_limit']) {
      await sql`grant select, insert, update, delete on ${sql.table(table)} to ${sql.ref(readers.gateway)}`.execute(db);
    }
    // It refuses requests of models here that would exceed a budget.
    await grantBudgets(db, readers.gateway);
  }
  if (present.has(readers.training)) {
    const role = sql.ref(readers.training);
    await sql`grant select (tenant, id) on session to ${role}`.execute(db);
    await sql`grant select (tenant, session_id, number, prompt, answer, status) on turn to ${role}`.execute(db);
  }
  if (!present.has(readers.relations)) return;
  const role = sql.ref(readers.relations);
  await sql`grant select (tenant, id, subject, teams, status, created_at) on session to ${role}`.execute(db);
  await sql`drop policy if exists relations_rows on session`.execute(db);
  await sql`
    create policy relations_rows on session for select to ${role}
    using (nullif(current_setting(${sql.lit(tenantSetting)}, true), '') = '*')`.execute(db);
}
