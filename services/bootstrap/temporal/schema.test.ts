import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type pg from 'pg';
import { toolPath } from '../../../cluster/toolchain.ts';
import { startPostgres, type TestPostgres } from '../testing/postgres.ts';
import { officialSchema } from '../testing/temporal.ts';
import { runTemporalSchema, updateSchema } from './schema.ts';
import { compareVersions, readVersions } from './versions.ts';

const run = promisify(execFile);
const owner = { username: 'temporal', password: 'temporal-password-of-this-test' };
const databases = ['temporal', 'temporal_visibility'] as const;
const main = join(import.meta.dirname, '..', 'main.ts');
/** Key of the lock with which a test holds up a statement of the Job. */
const gate = 4711;

describe('temporal-schema', () => {
  let postgres: TestPostgres;
  let admin: pg.Client;
  let schemaDir: string;
  let env: Record<string, string>;

  before(async () => {
    [postgres, schemaDir] = await Promise.all([startPostgres(), officialSchema()]);
    admin = await postgres.connect('postgres');
    await admin.query(`CREATE ROLE temporal LOGIN PASSWORD '${owner.password}'`);
    const credentials = join(postgres.folder, 'owner');
    await mkdir(credentials);
    await writeFile(join(credentials, 'username'), owner.username);
    await writeFile(join(credentials, 'password'), owner.password);
    env = {
      SCHEMA_DIR: schemaDir,
      PG_CREDENTIALS_DIR: credentials,
      PGHOST: '127.0.0.1',
      PGPORT: String(postgres.server.port),
      PGSSLROOTCERT: postgres.caFile,
      WAIT_SECONDS: '30',
    };
  });

  after(async () => {
    await admin.end();
    await postgres.stop();
  });

  beforeEach(async () => {
    for (const database of databases) {
      await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
      await admin.query(`CREATE DATABASE ${database} OWNER temporal TEMPLATE template0`);
    }
  });

  const dump = (database: string) =>
    // The \restrict line of newer pg_dump holds a random word.
    postgres
      .client('pg_dump', ['--schema-only', '--no-owner', database])
      .then((text) => text.replace(/^\\(un)?restrict .*$/gm, ''));

  const rows = async (database: string, sql: string) => {
    const client = await postgres.connect(database);
    const result = await client.query(sql);
    await client.end();
    return result.rows;
  };

  const history = (database: string) =>
    rows(
      database,
      `SELECT version_partition, year, month, old_version, new_version, manifest_md5, description
       FROM schema_update_history ORDER BY update_time`,
    );

  const current = (database: string) =>
    rows(database, 'SELECT version_partition, db_name, curr_version, min_compatible_version FROM schema_version');

  /** Every version exactly once, each from the one before. */
  const assertComplete = async () => {
    for (const [database, schema] of [
      ['temporal', 'temporal'],
      ['temporal_visibility', 'visibility'],
    ] as const) {
      const versions = (await readVersions(join(schemaDir, schema, 'versioned'))).map(({ version }) => version);
      const steps = await history(database);
      assert.deepEqual(
        steps.map((step) => [step.old_version, step.new_version]),
        [['0', '0.0'], ...versions.map((version, at) => [versions[at - 1] ?? '0.0', version])],
      );
      assert.equal((await current(database))[0].curr_version, versions.at(-1));
    }
    const broken = 'SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid';
    assert.deepEqual(await rows('temporal_visibility', broken), []);
  };

  /** Makes every statement of this kind wait until the returned function is called. */
  const holdUp = async (database: string, tag: string) => {
    const holder = await postgres.connect(database);
    await holder.query('SELECT pg_advisory_lock($1)', [gate]);
    await holder.query(`CREATE FUNCTION wait_at_gate() RETURNS event_trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_xact_lock(${gate}); END $$`);
    await holder.query(`CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('${tag}')
      EXECUTE FUNCTION wait_at_gate()`);
    return async () => {
      await holder.query('SELECT pg_advisory_unlock($1)', [gate]);
      await holder.end();
    };
  };

  const dropGate = async (database: string) => {
    const client = await postgres.connect(database);
    await client.query('DROP EVENT TRIGGER gate');
    await client.query('DROP FUNCTION wait_at_gate()');
    await client.end();
  };

  const eventually = async <T>(what: string, look: () => Promise<T | undefined>): Promise<T> => {
    for (const deadline = Date.now() + 15_000; Date.now() < deadline; await sleep(10)) {
      const found = await look();
      if (found !== undefined) return found;
    }
    throw new Error(`never happened: ${what}`);
  };

  const waitingAtGate = () =>
    eventually('a statement waits at the gate', async () => {
      const { rows: found } = await admin.query<{ pid: number }>(
        `SELECT pid FROM pg_stat_activity WHERE application_name = 'somagent-bootstrap' AND usename = 'temporal'
         AND wait_event_type = 'Lock' AND wait_event = 'advisory'`,
      );
      return found[0]?.pid;
    });

  it('leaves the databases as Temporal’s own tool does, to the last row', async (t) => {
    const tool = toolPath('temporal-sql-tool');
    if (!existsSync(tool)) return t.skip(`${tool} is not built: run make toolchain`);
    await runTemporalSchema(env);
    const mine = [];
    for (const database of databases)
      mine.push([await dump(database), await history(database), await current(database)]);
    await Promise.all(databases.map((database) => admin.query(`DROP DATABASE ${database} WITH (FORCE)`)));
    for (const [at, database] of databases.entries()) {
      await admin.query(`CREATE DATABASE ${database} OWNER temporal TEMPLATE template0`);
      const server = ['--plugin', 'postgres12', '--ep', '127.0.0.1', '-p', String(postgres.server.port)];
      const login = ['-u', owner.username, '--pw', owner.password, '--tls', '--tls-ca-file', postgres.caFile];
      const base = [...server, ...login, '--db', database];
      await run(tool, [...base, 'setup-schema', '-v', '0.0']);
      const folder = join(schemaDir, at === 0 ? 'temporal' : 'visibility', 'versioned');
      await run(tool, [...base, 'update-schema', '-d', folder]);
      assert.deepEqual([await dump(database), await history(database), await current(database)], mine[at]);
    }
  });

  it('does nothing the second time', async () => {
    await runTemporalSchema(env);
    const first = await Promise.all(databases.map(history));
    await runTemporalSchema(env);
    assert.deepEqual(await Promise.all(databases.map(history)), first);
    await assertComplete();
  });

  it('is applied once by three runs at the same time', async () => {
    await Promise.all([runTemporalSchema(env), runTemporalSchema(env), runTemporalSchema(env)]);
    await assertComplete();
  });

  it('goes on by itself when its connection is killed inside a version', async () => {
    const open = await holdUp('temporal', 'CREATE TABLE');
    // The tables of the version itself: the first CREATE TABLE statements are those of the history.
    const job = runTemporalSchema(env);
    const pid = await waitingAtGate();
    await admin.query('SELECT pg_terminate_backend($1)', [pid]);
    await open();
    await job;
    await dropGate('temporal');
    await assertComplete();
  });

  it('goes on from every boundary between two versions', async () => {
    const versions = await readVersions(join(schemaDir, 'temporal', 'versioned'));
    for (const reached of versions.keys()) {
      const client = await postgres.connect('temporal', owner);
      assert.equal(await updateSchema(client, versions.slice(0, reached + 1)), versions[reached]?.version);
      await client.end();
    }
    await runTemporalSchema(env);
    await assertComplete();
  });

  it('is resumed after its process was killed inside a version, of which nothing remains', async () => {
    const open = await holdUp('temporal', 'ALTER TABLE');
    const child = spawn(process.execPath, [main, 'temporal-schema'], { env, stdio: 'ignore' });
    const exited = new Promise((done) => child.once('exit', done));
    await waitingAtGate();
    child.kill('SIGKILL');
    await exited;
    const half = (await current('temporal'))[0].curr_version;
    assert.ok(compareVersions(half, '0.0') > 0 && compareVersions(half, '1.19') < 0, half);
    await open();
    await runTemporalSchema(env);
    await dropGate('temporal');
    await assertComplete();
  });

  it('replaces an index that a kill left half built', async () => {
    const versions = await readVersions(join(schemaDir, 'visibility', 'versioned'));
    const writer = await postgres.connect('temporal_visibility');
    const first = await postgres.connect('temporal_visibility', owner);
    await updateSchema(
      first,
      versions.filter(({ version }) => compareVersions(version, '1.12') <= 0),
    );
    await first.end();
    const open = await holdUp('temporal_visibility', 'ALTER TABLE');
    const job = runTemporalSchema(env);
    const pid = await waitingAtGate();
    await writer.query('BEGIN');
    // Queues behind ALTER TABLE and then keeps the concurrent build from ending.
    const locked = writer.query('LOCK TABLE executions_visibility IN ROW EXCLUSIVE MODE');
    await open();
    await locked;
    const broken = await eventually('an index is half built', async () => {
      const sql = 'SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid';
      return (await rows('temporal_visibility', sql))[0]?.name;
    });
    assert.equal(broken, 'by_temporal_reported_problems');
    await admin.query('SELECT pg_terminate_backend($1)', [pid]);
    await writer.query('ROLLBACK');
    await writer.end();
    await job;
    await dropGate('temporal_visibility');
    await assertComplete();
  });

  it('continues what Temporal’s tool left half done', async () => {
    const versions = await readVersions(join(schemaDir, 'temporal', 'versioned'));
    const client = await postgres.connect('temporal', owner);
    await updateSchema(client, versions.slice(0, 1));
    // The tool has no transaction: killed in version 1.1 it leaves the table without the version's row.
    await client.query(versions[1]?.statements[0] ?? '');
    await client.end();
    await runTemporalSchema(env);
    await assertComplete();
  });

  it('refuses a database that is newer than the image', async () => {
    await runTemporalSchema(env);
    const client = await postgres.connect('temporal');
    await client.query(`UPDATE schema_version SET curr_version = '9.0'`);
    await client.end();
    await assert.rejects(runTemporalSchema(env), {
      message: 'database temporal: its schema is version 9.0, newer than 1.19 of this image',
    });
  });
});
