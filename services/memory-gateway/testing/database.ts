import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ServerSettings, startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { createLogger, createPool, type PostgresConfig, TenantDatabase } from '@somagent/kit';
import { sql } from 'kysely';
import type { Database, Tables } from '../database.ts';
import type { NewMemory } from '../memories.ts';
import { migrate } from '../migrations.ts';

/** A real Postgres with the database `memory`, owned by the role that the service is. */
export interface TestMemoryDatabase {
  readonly postgres: TestPostgres;
  /** How the service connects. */
  readonly config: PostgresConfig;
  readonly database: Database;
  /** What waits in the outbox, oldest first, and is taken out of it. */
  events(): Promise<RecordedEvent[]>;
  stop(): Promise<void>;
}

/** An event as the outbox has it. */
export interface RecordedEvent {
  readonly topic: string;
  readonly type: string;
  readonly tenant: string | null;
  readonly actor: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Logs nothing. */
export const quiet = createLogger({ service: 'memory-test', level: 'silent' });

/** Starts Postgres, makes role and database, migrates. @param settings where a benchmark needs a server as deployed */
export async function startMemoryDatabase(settings: ServerSettings = {}): Promise<TestMemoryDatabase> {
  const postgres = await startPostgres(settings);
  try {
    return await prepare(postgres);
  } catch (error) {
    await postgres.stop();
    throw error;
  }
}

async function prepare(postgres: TestPostgres): Promise<TestMemoryDatabase> {
  const password = randomBytes(16).toString('hex');
  const admin = await postgres.connect('postgres');
  await admin.query(`create role memory login password '${password}'`);
  await admin.query('create database memory owner memory');
  await admin.end();
  const folder = join(postgres.folder, 'credentials');
  await mkdir(folder);
  await writeFile(join(folder, 'username'), 'memory');
  await writeFile(join(folder, 'password'), password);
  const config: PostgresConfig = {
    PGHOST: postgres.server.host,
    PGPORT: postgres.server.port,
    PGDATABASE: 'memory',
    PG_CREDENTIALS_DIR: folder,
    PG_CA_FILE: postgres.caFile,
    PG_POOL_SIZE: 8,
  };
  const database: Database = new TenantDatabase<Tables>(createPool(config, quiet));
  await migrate(database.untenanted);
  const stop = async () => {
    await database.destroy();
    await postgres.stop();
  };
  return { postgres, config, database, events: () => takeEvents(database), stop };
}

async function takeEvents(database: Database): Promise<RecordedEvent[]> {
  const { rows } = await sql<RecordedEvent & { seq: string }>`
    with taken as (delete from outbox returning *)
    select seq, topic, value ->> 'type' as type, value ->> 'tenant' as tenant, value -> 'actor' ->> 'id' as actor,
      value -> 'data' as data
    from taken order by seq`.execute(database.untenanted);
  return rows.map(({ seq: _, ...event }) => event);
}

/** A memory of ada of acme, with whatever a test says of it. */
export const memoryOf = (text: string, changed: Partial<NewMemory> = {}): NewMemory => ({
  tenant: 'acme',
  id: randomUUID(),
  owner: 'ada',
  team: null,
  persona: null,
  sessionId: null,
  kind: 'semantic',
  text,
  importance: 0.5,
  expiresAt: null,
  ...changed,
});

/** Who asks in tests. */
export const by = { actor: { kind: 'user' as const, id: 'ada', client: null }, requestId: 'r-1' };
