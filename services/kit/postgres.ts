import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { z } from 'zod';
import { count, port, text } from './config.ts';
import type { Logger } from './log.ts';
import { inChildSpan, isTracing, SpanKind } from './tracing.ts';

/** The variables of a Postgres connection. */
export const postgresVariables = {
  PGHOST: text('the host name of Postgres, e.g. postgres.local-data.svc'),
  PGPORT: port('the port of Postgres').default(5432),
  PGDATABASE: text('the name of the database, e.g. sessions'),
  PG_CREDENTIALS_DIR: text('the directory with the files username and password'),
  PG_CA_FILE: text('the PEM file of the authority that signed the certificate of Postgres'),
  PG_POOL_SIZE: count('the most connections that one process opens').default(8),
};

const schema = z.object(postgresVariables);
/** Where and as whom to connect. */
export type PostgresConfig = z.output<typeof schema>;

/**
 * The settings of one connection. Files are read each time, so that a rotated password or authority is used from the
 * next connection on, without a restart. The certificate of the server is always verified, its name included.
 */
export function connectionSettings(config: PostgresConfig): pg.ClientConfig {
  const credential = (name: string) => readFileSync(join(config.PG_CREDENTIALS_DIR, name), 'utf8').trim();
  return {
    host: config.PGHOST,
    port: config.PGPORT,
    database: config.PGDATABASE,
    user: credential('username'),
    password: credential('password'),
    ssl: { ca: readFileSync(config.PG_CA_FILE, 'utf8'), rejectUnauthorized: true },
    connectionTimeoutMillis: 5000,
    keepAlive: true,
  };
}

/** A pool whose every new connection reads the credentials again. */
export function createPool(config: PostgresConfig, log: Logger): pg.Pool {
  class FreshClient extends pg.Client {
    constructor() {
      super({ ...connectionSettings(config), statement_timeout: 10_000, query_timeout: 12_000 });
      traceStatements(this, config.PGDATABASE);
    }
  }
  const pool = new pg.Pool({
    Client: FreshClient,
    max: config.PG_POOL_SIZE,
    idleTimeoutMillis: 30_000,
    connectionTimeoutMillis: 5000,
    // A long-lived connection would outlive the password it was opened with.
    maxLifetimeSeconds: 900,
  });
  // Without a listener the loss of an idle connection (a failover) would end the process.
  pool.on('error', (error) => log.warn({ err: error }, 'an idle connection to Postgres was lost'));
  return pool;
}

/**
 * Statements in spans of their own, inside of a traced request. They have no text and no values: both may be somebody's.
 * Names: https://opentelemetry.io/docs/specs/semconv/database/postgresql/
 */
function traceStatements(client: pg.Client, database: string): void {
  const ask = client.query.bind(client) as (...values: readonly unknown[]) => unknown;
  client.query = ((...values: readonly unknown[]) => {
    const run = () => ask(...values);
    // The form with a callback is the pool's own; whoever waits for it, waits in a span of his own.
    if (!isTracing() || typeof values.at(-1) === 'function') return run();
    const statement = textOf(values[0]);
    if (statement === undefined) return run();
    const operation = (/^\s*\w+/.exec(statement)?.[0] ?? 'query').trim().toLowerCase();
    const attributes = {
      'db.system.name': 'postgresql',
      'db.namespace': database,
      'db.operation.name': operation,
    };
    return inChildSpan(`postgres ${operation}`, { kind: SpanKind.CLIENT, attributes }, async () => run());
  }) as pg.Client['query'];
}

/** The statement of a query, as text; undefined for what is more than one, such as a cursor. */
function textOf(query: unknown): string | undefined {
  if (typeof query === 'string') return query;
  if (typeof query !== 'object' || query === null || 'submit' in query || !('text' in query)) return undefined;
  return typeof query.text === 'string' ? query.text : undefined;
}
