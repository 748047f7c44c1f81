import { readFile } from 'node:fs/promises';
import pg from 'pg';
import { z } from 'zod';
import { codeOf } from '../failure.ts';
import type { Credentials } from '../settings.ts';
import { type Dependency, waitFor } from '../wait.ts';

/** Where Postgres is. TLS is verified against PGSSLROOTCERT; a unix socket (a path in PGHOST) needs none. */
export const postgresSettings = {
  PGHOST: z.string().min(1),
  PGPORT: z.coerce.number().int().positive().default(5432),
  PGSSLROOTCERT: z.string().optional(),
};

export interface Server {
  readonly host: string;
  readonly port: number;
  /** PEM of the authority; undefined only for a unix socket. */
  readonly ca: string | undefined;
}

const shape = z.object(postgresSettings).check((context) => {
  const { PGHOST, PGSSLROOTCERT } = context.value;
  if (PGSSLROOTCERT === undefined && !PGHOST.startsWith('/')) {
    context.issues.push({
      code: 'custom',
      path: ['PGSSLROOTCERT'],
      message: 'is required: Postgres is reached over TLS only',
      input: context.value,
    });
  }
});

/** The server's settings as a schema for `readSettings`, to be combined with a command's own. */
export const serverSettings = shape;

export async function serverOf(settings: z.output<typeof shape>): Promise<Server> {
  const ca = settings.PGSSLROOTCERT === undefined ? undefined : await readFile(settings.PGSSLROOTCERT, 'utf8');
  return { host: settings.PGHOST, port: settings.PGPORT, ca };
}

/** SQLSTATEs that waiting does not mend: wrong password, no such role, no such database, no entry in pg_hba. */
const finalStates = new Set(['28P01', '28000', '3D000', '42501']);

/** SQLSTATE classes and codes after which a repeated attempt may succeed: lost connection, shutdown, fail-over. */
export function isTransient(error: unknown): boolean {
  const code = codeOf(error);
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) {
    return code.startsWith('08') || code.startsWith('57P') || code === '25006' || code === '53300';
  }
  // A socket error has an `ECONN...` code or, when the server vanished mid-query, none at all.
  return true;
}

export function describe(server: Server, database: string): Dependency {
  return {
    name: `Postgres database ${database}`,
    address: `${server.host}:${server.port}`,
    fix: 'look at the Postgres pods (is there a primary?), the NetworkPolicy, and the Secret of this role',
  };
}

/** Connects once. The caller ends the client. */
export async function connect(server: Server, database: string, credentials: Credentials): Promise<pg.Client> {
  const client = new pg.Client({
    host: server.host,
    port: server.port,
    database,
    user: credentials.username,
    password: credentials.password,
    connectionTimeoutMillis: 5000,
    keepAlive: true,
    application_name: 'somagent-bootstrap',
    ...(server.ca === undefined ? {} : { ssl: { ca: server.ca, rejectUnauthorized: true } }),
  });
  // Without a listener a lost connection between two queries would end the process with a stack trace.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Runs work on one connection and repeats all of it when the connection is lost: work must be idempotent. */
export function withConnection<T>(
  server: Server,
  database: string,
  credentials: Credentials,
  seconds: number,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const attempt = async () => {
    const client = await connect(server, database, credentials);
    try {
      return await work(client);
    } finally {
      await client.end().catch(() => undefined);
    }
  };
  const isFinal = (error: unknown) => finalStates.has(String(codeOf(error))) || !isTransient(error);
  return waitFor(describe(server, database), attempt, { seconds, isFinal });
}
