import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reconcileObjectStore } from '@somagent/bootstrap/object-store/reconcile.ts';
import { startObjectStore, type TestObjectStore } from '@somagent/bootstrap/testing/object-store.ts';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { createLogger, createPool, type PostgresConfig, TenantDatabase } from '@somagent/kit';
import { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { openDatabase } from '@somagent/orchestrator/database.ts';
import { migrate as migrateSessions } from '@somagent/orchestrator/migrations.ts';
import { sql } from 'kysely';
import type { Database, Tables } from '../database.ts';
import { LineageSigner } from '../lineage.ts';
import { migrate } from '../migrations.ts';
import { openSessions, type Sessions } from '../sessions.ts';

/** Logs nothing. */
export const quiet = createLogger({ service: 'training-test', level: 'silent' });

/** What the service stands on, all of it real: Postgres with both databases, object store, key. */
export interface TestPlatform {
  readonly db: Database;
  /** As the reader of the service. */
  readonly sessions: Sessions;
  /** As the owner: to put sessions there. */
  readonly owner: ReturnType<typeof openDatabase>;
  readonly store: TestObjectStore;
  readonly bucket: ObjectStoreBucket;
  readonly signer: LineageSigner;
  /** With the private key of the signer. */
  readonly lineageKeyFile: string;
  /** A folder of the test, removed by stop. */
  readonly folder: string;
  /** Types of the events that wait in the outbox, oldest first, with their data; takes them out. */
  events(): Promise<readonly { readonly type: string; readonly data: Record<string, unknown> }[]>;
  stop(): Promise<void>;
}

const roles = ['training', 'sessions', 'sessions_training'] as const;

/** Starts everything. */
export async function startPlatform(): Promise<TestPlatform> {
  const folder = await mkdtemp(join(tmpdir(), 'tr-'));
  const [postgres, store] = await Promise.all([startPostgres(), startObjectStore()]);
  const configs = await createDatabases(postgres, folder);
  const db: Database = new TenantDatabase<Tables>(createPool(configs.training, quiet));
  const owner = openDatabase(createPool(configs.sessions, quiet));
  const sessions = openSessions(createPool(configs.sessions_training, quiet));
  await migrate(db.untenanted);
  await migrateSessions(owner.untenanted);
  const users = ['training', 'slm'];
  for (const user of users) await store.credentials(user);
  const plan = { users, buckets: [{ name: 'models', readers: ['slm'], writers: ['training'] }] };
  await reconcileObjectStore(store.admin, plan, store.usersDir);
  const keyFile = join(folder, 'lineage.pem');
  const { privateKey } = generateKeyPairSync('ed25519');
  await writeFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return {
    ...{ db, sessions, owner, store, folder, lineageKeyFile: keyFile },
    bucket: new ObjectStoreBucket({ ...store.bucket('models', 'training'), timeoutMs: 30_000 }),
    signer: new LineageSigner(keyFile),
    events: () => takeEvents(db),
    stop: async () => {
      await Promise.all([db, sessions, owner].map((database) => database.destroy()));
      await Promise.all([postgres.stop(), store.stop()]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function createDatabases(postgres: TestPostgres, folder: string) {
  const admin = await postgres.connect('postgres');
  const configs = {} as Record<(typeof roles)[number], PostgresConfig>;
  for (const role of roles) {
    const password = randomBytes(16).toString('hex');
    await admin.query(`create role ${role} login password '${password}'`);
    const directory = join(folder, role);
    await mkdir(directory);
    await writeFile(join(directory, 'username'), role);
    await writeFile(join(directory, 'password'), password, { mode: 0o600 });
    configs[role] = {
      PGHOST: postgres.server.host,
      PGPORT: postgres.server.port,
      PGDATABASE: role === 'training' ? 'training' : 'sessions',
      PG_CREDENTIALS_DIR: directory,
      PG_CA_FILE: postgres.caFile,
      PG_POOL_SIZE: 4,
    };
  }
  for (const name of ['training', 'sessions']) await admin.query(`create database ${name} owner ${name}`);
  await admin.end();
  return configs;
}

async function takeEvents(db: Database) {
  const { rows } = await sql<{ seq: string; type: string; data: Record<string, unknown> }>`
    with taken as (delete from outbox returning *)
    select seq, value ->> 'type' as type, value -> 'data' as data from taken order by seq`.execute(db.untenanted);
  return rows.map(({ type, data }) => ({ type, data }));
}
