import { join } from 'node:path';
import pg from 'pg';
import { z } from 'zod';
import { codeOf, Failure } from '../failure.ts';
import { log } from '../log.ts';
import {
  type Credentials,
  type Environment,
  readCredentials,
  readJson,
  readSettings,
  waitSettings,
} from '../settings.ts';
import { connect, postgresSettings, type Server, serverOf, serverSettings, withConnection } from './connect.ts';
import { withLock } from './lock.ts';

const identifier = z.string().regex(/^[a-z_][a-z0-9_]{0,62}$/, 'must be a plain SQL identifier: a-z, 0-9 and _');

/** Plan of the `databases` command. The password of an owner or reader is mounted at ROLES_DIR/<role>. */
export const databasesPlan = z.strictObject({
  databases: z
    .array(z.strictObject({ name: identifier, owner: identifier, readers: z.array(identifier).default([]) }))
    .min(1),
});
export type DatabasesPlan = z.output<typeof databasesPlan>;

const settings = z.object({
  PLAN: z.string().default('/etc/soma/plan.json'),
  SUPERUSER_DIR: z.string().default('/secrets/superuser'),
  ROLES_DIR: z.string().default('/secrets/roles'),
  ...postgresSettings,
  ...waitSettings,
});

/** Creates the applications' roles and databases, each closed to every other role. */
export async function runDatabases(env: Environment): Promise<void> {
  const values = readSettings(settings, env);
  const server = await serverOf(readSettings(serverSettings, env));
  const plan = await readJson(databasesPlan, values.PLAN);
  const superuser = await readCredentials(values.SUPERUSER_DIR);
  const roles = await readRoles(plan, values.ROLES_DIR);
  const counts = await withConnection(server, 'postgres', superuser, values.WAIT_SECONDS, (client) =>
    withLock(client, 'somagent/databases', () => ensureAll(client, server, plan, roles)),
  );
  log.info('databases done', counts);
}

async function readRoles(plan: DatabasesPlan, directory: string): Promise<ReadonlyMap<string, Credentials>> {
  const roles = new Map<string, Credentials>();
  for (const role of new Set(plan.databases.flatMap(({ owner, readers }) => [owner, ...readers]))) {
    const credentials = await readCredentials(join(directory, role));
    if (credentials.username !== role) {
      throw new Failure(
        `role ${role}: its Secret is of user ${credentials.username}`,
        `mount the Secret of ${role} at ${join(directory, role)}`,
      );
    }
    roles.set(role, credentials);
  }
  return roles;
}

type Counts = { created: number; updated: number; unchanged: number };

async function ensureAll(
  client: pg.Client,
  server: Server,
  plan: DatabasesPlan,
  roles: ReadonlyMap<string, Credentials>,
): Promise<Counts> {
  const counts: Counts = { created: 0, updated: 0, unchanged: 0 };
  for (const role of roles.values()) await ensureRole(client, server, role, counts);
  for (const { name, owner, readers } of plan.databases) {
    await ensureDatabase(client, name, owner, counts);
    await admitReaders(client, name, readers);
  }
  return counts;
}

/** Readers may connect; what they may read is granted by the migrations of the owner. */
async function admitReaders(client: pg.Client, name: string, readers: readonly string[]): Promise<void> {
  for (const reader of readers) {
    await client.query(`GRANT CONNECT ON DATABASE ${pg.escapeIdentifier(name)} TO ${pg.escapeIdentifier(reader)}`);
  }
}

async function ensureRole(client: pg.Client, server: Server, role: Credentials, counts: Counts): Promise<void> {
  const { rowCount } = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [role.username]);
  const name = pg.escapeIdentifier(role.username);
  if (rowCount === 0) {
    await withPassword(client, `CREATE ROLE ${name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION`, role);
    counts.created += 1;
    log.info('role created', { role: role.username });
  } else if (await canLogIn(server, role)) {
    counts.unchanged += 1;
  } else {
    await withPassword(client, `ALTER ROLE ${name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION`, role);
    counts.updated += 1;
    log.info('role password set', { role: role.username });
  }
}

/** A statement with a password must reach neither the server's log nor pg_stat_statements. */
async function withPassword(client: pg.Client, statement: string, role: Credentials): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query("SET LOCAL log_statement = 'none'");
    await client.query('SET LOCAL log_min_duration_statement = -1');
    await client.query("SET LOCAL log_min_error_statement = 'panic'");
    await client.query(`${statement} PASSWORD ${pg.escapeLiteral(role.password)}`);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

async function canLogIn(server: Server, role: Credentials): Promise<boolean> {
  try {
    await (await connect(server, 'postgres', role)).end();
    return true;
  } catch (error) {
    const code = String(codeOf(error));
    // 42501: the password was right, but the role may not connect to this database.
    if (code === '42501') return true;
    if (code === '28P01' || code === '28000') return false;
    throw error;
  }
}

async function ensureDatabase(client: pg.Client, name: string, owner: string, counts: Counts): Promise<void> {
  const { rows } = await client.query<{ owner: string }>(
    'SELECT pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datname = $1',
    [name],
  );
  const database = pg.escapeIdentifier(name);
  const role = pg.escapeIdentifier(owner);
  const current = rows[0]?.owner;
  if (current === undefined) {
    await client.query(`CREATE DATABASE ${database} OWNER ${role} ENCODING 'UTF8' TEMPLATE template0`);
    counts.created += 1;
    log.info('database created', { database: name, owner });
  } else if (current !== owner) {
    await client.query(`ALTER DATABASE ${database} OWNER TO ${role}`);
    counts.updated += 1;
    log.info('database owner set', { database: name, owner, before: current });
  } else {
    counts.unchanged += 1;
  }
  // By default every role may connect to every database: one application must not see another's.
  await client.query(`REVOKE ALL ON DATABASE ${database} FROM PUBLIC`);
}
