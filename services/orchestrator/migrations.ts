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

/** Every migration, by name; names sort in the order in which they apply, and a released one never changes. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-sessions': sessions,
  '0002-interruption': interruption,
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
  return results ?? [];
}
