import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ServerSettings, TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { startPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { createLogger, createPool, type PostgresConfig, TenantDatabase } from '@somagent/kit';
import type { Database } from '../log/database.ts';
import { migrate } from '../log/migrations.ts';

/** A real Postgres with the audit log's database, its owner and the role of the service. */
export interface TestAuditDatabase {
  readonly postgres: TestPostgres;
  /** How the service connects. */
  readonly config: PostgresConfig;
  /** Connections of the service. */
  readonly database: TenantDatabase<Database>;
  /** Another pool of the service, as of a second process. */
  open(): TenantDatabase<Database>;
  stop(): Promise<void>;
}

const writer = { username: 'audit_writer', password: 'a password of this test only' };
const owner = { username: 'audit', password: 'another password of this test only' };

/** Starts Postgres, makes roles and database, migrates. */
export async function startAuditDatabase(settings: ServerSettings = {}): Promise<TestAuditDatabase> {
  const postgres = await startPostgres(settings);
  try {
    return await prepare(postgres);
  } catch (error) {
    await postgres.stop();
    throw error;
  }
}

async function prepare(postgres: TestPostgres): Promise<TestAuditDatabase> {
  const admin = await postgres.connect('postgres');
  for (const { username, password } of [owner, writer]) {
    await admin.query(`create role ${username} login password '${password}'`);
  }
  await admin.query('create database audit owner audit');
  await admin.query('revoke all on database audit from public');
  await admin.query('grant connect on database audit to audit_writer');
  await admin.end();
  const migrating = new TenantDatabase<Database>(createPool(await configOf(postgres, owner), quiet));
  await migrate(migrating.untenanted, writer.username);
  await migrating.destroy();
  const config = await configOf(postgres, writer);
  const opened: TenantDatabase<Database>[] = [];
  const open = () => {
    const database = new TenantDatabase<Database>(createPool(config, quiet));
    opened.push(database);
    return database;
  };
  const stop = async () => {
    await Promise.all(opened.map((database) => database.destroy()));
    await postgres.stop();
  };
  return { postgres, config, database: open(), open, stop };
}

const quiet = createLogger({ service: 'audit-test', level: 'error' });

async function configOf(postgres: TestPostgres, { username, password }: typeof owner): Promise<PostgresConfig> {
  const folder = join(postgres.folder, `credentials-${username}`);
  await mkdir(folder);
  await writeFile(join(folder, 'username'), username);
  await writeFile(join(folder, 'password'), password);
  return {
    PGHOST: postgres.server.host,
    PGPORT: postgres.server.port,
    PGDATABASE: 'audit',
    PG_CREDENTIALS_DIR: folder,
    PG_CA_FILE: postgres.caFile,
    PG_POOL_SIZE: 4,
  };
}
