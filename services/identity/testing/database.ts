import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { createLogger, createPool, type PostgresConfig, TenantDatabase } from '@somagent/kit';
import { sql } from 'kysely';
import type { Tables } from '../database.ts';
import { migrate } from '../migrations.ts';

/** A real Postgres with the database `identity`, owned by the role that the service is. */
export interface TestIdentityDatabase {
  readonly postgres: TestPostgres;
  /** How the service connects. */
  readonly config: PostgresConfig;
  readonly database: TenantDatabase<Tables>;
  /** What waits in the outbox, oldest first, and is taken out of it. */
  events(): Promise<RecordedEvent[]>;
  stop(): Promise<void>;
}

/** An event as the outbox has it. */
export interface RecordedEvent {
  readonly topic: string;
  readonly key: string;
  readonly type: string;
  readonly tenant: string | null;
  readonly actor: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Logs nothing. */
export const quiet = createLogger({ service: 'identity-test', level: 'silent' });

/** Starts Postgres, makes role and database, migrates. */
export async function startIdentityDatabase(): Promise<TestIdentityDatabase> {
  const postgres = await startPostgres();
  try {
    return await prepare(postgres);
  } catch (error) {
    await postgres.stop();
    throw error;
  }
}

async function prepare(postgres: TestPostgres): Promise<TestIdentityDatabase> {
  const password = randomBytes(16).toString('hex');
  const admin = await postgres.connect('postgres');
  await admin.query(`create role identity login password '${password}'`);
  await admin.query('create database identity owner identity');
  await admin.end();
  const folder = join(postgres.folder, 'credentials');
  await mkdir(folder);
  await writeFile(join(folder, 'username'), 'identity');
  await writeFile(join(folder, 'password'), password);
  const config: PostgresConfig = {
    PGHOST: postgres.server.host,
    PGPORT: postgres.server.port,
    PGDATABASE: 'identity',
    PG_CREDENTIALS_DIR: folder,
    PG_CA_FILE: postgres.caFile,
    PG_POOL_SIZE: 8,
  };
  const database = new TenantDatabase<Tables>(createPool(config, quiet));
  await migrate(database.untenanted);
  const stop = async () => {
    await database.destroy();
    await postgres.stop();
  };
  return { postgres, config, database, events: () => takeEvents(database), stop };
}

async function takeEvents(database: TenantDatabase<Tables>): Promise<RecordedEvent[]> {
  const { rows } = await sql<RecordedEvent & { seq: string }>`
    with taken as (delete from outbox returning *)
    select seq, topic, key, value ->> 'type' as type, value ->> 'tenant' as tenant,
      value -> 'actor' ->> 'id' as actor, value -> 'data' as data
    from taken order by seq`.execute(database.untenanted);
  return rows.map(({ seq: _, ...event }) => event);
}
