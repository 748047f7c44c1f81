import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Credentials } from '../settings.ts';
import { startPostgres, type TestPostgres } from '../testing/postgres.ts';
import { runDatabases } from './databases.ts';

const plan = {
  databases: [
    { name: 'temporal', owner: 'temporal' },
    { name: 'temporal_visibility', owner: 'temporal' },
    { name: 'sessions', owner: 'sessions', readers: ['sessions_gateway'] },
  ],
};

describe('databases', () => {
  let postgres: TestPostgres;
  let env: Record<string, string>;

  const writeCredentials = async (folder: string, { username, password }: Credentials) => {
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'username'), username);
    await writeFile(join(folder, 'password'), password);
  };
  const role = (username: string, password: string) =>
    writeCredentials(join(postgres.folder, 'roles', username), { username, password });

  before(async () => {
    postgres = await startPostgres();
    await writeCredentials(join(postgres.folder, 'superuser'), postgres.superuser);
    await role('temporal', 'first-temporal-password');
    await role('sessions', 'first-sessions-password');
    await role('sessions_gateway', 'first-reader-password');
    await writeFile(join(postgres.folder, 'plan.json'), JSON.stringify(plan));
    env = {
      PLAN: join(postgres.folder, 'plan.json'),
      SUPERUSER_DIR: join(postgres.folder, 'superuser'),
      ROLES_DIR: join(postgres.folder, 'roles'),
      PGHOST: '127.0.0.1',
      PGPORT: String(postgres.server.port),
      PGSSLROOTCERT: postgres.caFile,
      WAIT_SECONDS: '20',
    };
  });

  after(() => postgres.stop());

  it('creates roles and databases, also when two runs begin at once', async () => {
    await Promise.all([runDatabases(env), runDatabases(env)]);
    const client = await postgres.connect('postgres');
    const { rows } = await client.query(
      `SELECT datname, pg_get_userbyid(datdba) AS owner FROM pg_database
       WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY datname`,
    );
    await client.end();
    assert.deepEqual(rows, [
      { datname: 'sessions', owner: 'sessions' },
      { datname: 'temporal', owner: 'temporal' },
      { datname: 'temporal_visibility', owner: 'temporal' },
    ]);
  });

  it('gives the owner its database and keeps every other role out', async () => {
    const sessions = { username: 'sessions', password: 'first-sessions-password' };
    const own = await postgres.connect('sessions', sessions);
    await own.query('CREATE TABLE proof (id int)');
    await own.end();
    await assert.rejects(postgres.connect('temporal', sessions), { code: '42501' });
  });

  it('lets a reader connect to its database only, and read nothing that it was not granted', async () => {
    const reader = { username: 'sessions_gateway', password: 'first-reader-password' };
    const client = await postgres.connect('sessions', reader);
    await assert.rejects(client.query('SELECT * FROM proof'), { code: '42501' });
    await assert.rejects(client.query('CREATE TABLE mine (id int)'), { code: '42501' });
    await client.end();
    await assert.rejects(postgres.connect('temporal', reader), { code: '42501' });
  });

  it('sets a rotated password and refuses the old one', async () => {
    await role('sessions', 'second-sessions-password');
    await runDatabases(env);
    await (await postgres.connect('sessions', { username: 'sessions', password: 'second-sessions-password' })).end();
    const old = { username: 'sessions', password: 'first-sessions-password' };
    await assert.rejects(postgres.connect('sessions', old), { code: '28P01' });
  });

  it('keeps passwords out of the server log, although it logs all statements', () => {
    assert.match(postgres.log(), /CREATE DATABASE "sessions"/);
    assert.doesNotMatch(postgres.log(), /sessions-password|temporal-password|reader-password/);
  });

  it('gives back a database to its declared owner', async () => {
    const client = await postgres.connect('postgres');
    await client.query('ALTER DATABASE sessions OWNER TO temporal');
    await runDatabases(env);
    const { rows } = await client.query(
      `SELECT pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = 'sessions'`,
    );
    await client.end();
    assert.deepEqual(rows, [{ owner: 'sessions' }]);
  });

  it('names a Secret of the wrong user', async () => {
    await writeCredentials(join(postgres.folder, 'wrong', 'sessions'), { username: 'keycloak', password: 'x' });
    await writeCredentials(join(postgres.folder, 'wrong', 'sessions_gateway'), { username: 'x', password: 'x' });
    await writeCredentials(join(postgres.folder, 'wrong', 'temporal'), { username: 'temporal', password: 'x' });
    await assert.rejects(runDatabases({ ...env, ROLES_DIR: join(postgres.folder, 'wrong') }), {
      message: 'role sessions: its Secret is of user keycloak',
    });
  });

  it('says at once that a password is wrong, with the address and the fix', async () => {
    await writeCredentials(join(postgres.folder, 'intruder'), { username: 'postgres', password: 'guess' });
    const started = Date.now();
    await assert.rejects(runDatabases({ ...env, SUPERUSER_DIR: join(postgres.folder, 'intruder') }), {
      message: `Postgres database postgres at 127.0.0.1:${postgres.server.port} refused: password authentication failed for user "postgres" (28P01)`,
    });
    assert.ok(Date.now() - started < 2000);
  });

  it('refuses a server without a certificate authority to check it by', async () => {
    const { PGSSLROOTCERT: _, ...open } = env;
    await assert.rejects(runDatabases(open), { message: /PGSSLROOTCERT: is required/ });
  });
});
