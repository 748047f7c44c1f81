import { quotaMigration } from '@somagent/governance/quota-migration.ts';
import { isolateTenants } from '@somagent/kit';
import { outboxMigration } from '@somagent/kit/outbox.ts';
import { type Kysely, sql } from 'kysely';
import { type Migration, type MigrationResult, Migrator } from 'kysely/migration';

const tables: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table tenant (
        tenant text primary key,
        display_name text not null,
        standing text not null default 'active' check (standing in ('active', 'suspended')),
        halted boolean not null default false,
        training text not null default 'locked' check (training in ('locked', 'unlocked')),
        created_at timestamptz(3) not null default clock_timestamp()
      )`.execute(db);
    await sql`
      create table team (
        tenant text not null references tenant,
        name text not null,
        created_at timestamptz(3) not null default clock_timestamp(),
        primary key (tenant, name)
      )`.execute(db);
    await sql`
      create table account (
        tenant text not null references tenant,
        id text not null,
        kind text not null check (kind in ('user', 'service-account')),
        username text not null unique,
        email text,
        roles text[] not null,
        teams text[] not null,
        standing text not null default 'active' check (standing in ('active', 'suspended')),
        created_at timestamptz(3) not null default clock_timestamp(),
        primary key (tenant, id)
      )`.execute(db);
    await sql`create unique index account_id on account (id)`.execute(db);
    await sql`
      create table api_key (
        tenant text not null,
        id text not null unique,
        owner text not null,
        name text not null,
        scopes text[] not null,
        secret_hash bytea not null check (length(secret_hash) = 32),
        created_at timestamptz(3) not null default clock_timestamp(),
        expires_at timestamptz(3) not null,
        revoked_at timestamptz(3),
        primary key (tenant, id),
        foreign key (tenant, owner) references account (tenant, id) on delete cascade
      )`.execute(db);
    await sql`
      create table training_proposal (
        tenant text not null references tenant,
        id uuid not null,
        proposed_by text not null,
        reason text not null,
        status text not null default 'open' check (status in ('open', 'approved', 'withdrawn', 'expired')),
        created_at timestamptz(3) not null default clock_timestamp(),
        expires_at timestamptz(3) not null,
        decided_by text,
        primary key (tenant, id),
        -- The rule of two people, where no code can forget it.
        check (status <> 'approved' or (decided_by is not null and decided_by <> proposed_by))
      )`.execute(db);
    await sql`
      create unique index training_proposal_open on training_proposal (tenant) where status = 'open'`.execute(db);
    await sql`
      create table revocation (
        tenant text not null,
        kind text not null check (kind in ('session', 'token', 'key')),
        id text not null,
        expires_at timestamptz(3) not null,
        primary key (kind, id)
      )`.execute(db);
    for (const table of ['tenant', 'team', 'account', 'api_key', 'training_proposal', 'revocation']) {
      await isolateTenants(db, table);
    }
    await sql`
      create table control (
        single boolean primary key default true check (single),
        revision bigint not null,
        halted boolean not null
      )`.execute(db);
    await sql`insert into control (revision, halted) values (1, false)`.execute(db);
  },
};

/** Every migration, by name; names sort in the order in which they apply, and a released one never changes. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-outbox': outboxMigration,
  '0002-identity': tables,
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
  return results ?? [];
}
