import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { z } from 'zod';
import { isTransient, postgresSettings, serverOf, serverSettings, withConnection } from '../database/connect.ts';
import { withLock } from '../database/lock.ts';
import { codeOf, Failure, messageOf } from '../failure.ts';
import { log } from '../log.ts';
import { type Environment, readCredentials, readSettings, waitSettings } from '../settings.ts';
import { ensureHistory, inTransaction, recordVersion } from './history.ts';
import { runsOutsideTransaction } from './statements.ts';
import { compareVersions, readVersions, type SchemaVersion } from './versions.ts';

const settings = z.object({
  SCHEMA_DIR: z.string().default('/app/schema/temporal'),
  PG_CREDENTIALS_DIR: z.string().default('/secrets/postgres'),
  TEMPORAL_DATABASE: z.string().default('temporal'),
  TEMPORAL_VISIBILITY_DATABASE: z.string().default('temporal_visibility'),
  ...postgresSettings,
  ...waitSettings,
});

/** Brings both Temporal databases to the newest version in SCHEMA_DIR. Safe to kill and to run twice at once. */
export async function runTemporalSchema(env: Environment): Promise<void> {
  const values = readSettings(settings, env);
  const server = await serverOf(readSettings(serverSettings, env));
  const credentials = await readCredentials(values.PG_CREDENTIALS_DIR);
  const targets = [
    { database: values.TEMPORAL_DATABASE, schema: 'temporal' },
    { database: values.TEMPORAL_VISIBILITY_DATABASE, schema: 'visibility' },
  ];
  for (const { database, schema } of targets) {
    const versions = await readVersions(schemaFolder(values.SCHEMA_DIR, schema));
    const version = await withConnection(server, database, credentials, values.WAIT_SECONDS, (client) =>
      updateSchema(client, versions),
    );
    log.info('schema done', { database, version });
  }
}

/** The image may keep the official tree's own levels (`postgresql/v12`). */
function schemaFolder(directory: string, schema: string): string {
  const official = join(directory, 'postgresql', 'v12', schema, 'versioned');
  return existsSync(official) ? official : join(directory, schema, 'versioned');
}

/** Applies every version above the recorded one, in order, and returns the version reached. */
export function updateSchema(client: pg.Client, versions: readonly SchemaVersion[]): Promise<string> {
  return withLock(client, 'somagent/temporal-schema', async () => {
    let current = await ensureHistory(client);
    refuseDowngrade(client, current, versions);
    for (const next of versions) {
      if (compareVersions(next.version, current) <= 0) continue;
      await applyVersion(client, current, next);
      log.info('schema version applied', { database: client.database, from: current, to: next.version });
      current = next.version;
    }
    return current;
  });
}

function refuseDowngrade(client: pg.Client, current: string, versions: readonly SchemaVersion[]): void {
  const newest = versions.at(-1)?.version ?? '0.0';
  if (compareVersions(current, newest) > 0) {
    throw new Failure(
      `database ${client.database}: its schema is version ${current}, newer than ${newest} of this image`,
      'deploy the Temporal version that wrote it, or a newer one',
    );
  }
}

/**
 * A version is one transaction, unless it builds an index concurrently, which Postgres refuses in a transaction.
 * Such a version is repeatable by its own text (IF NOT EXISTS, invalid indexes dropped first), and its rows are
 * written when all of it is there.
 */
async function applyVersion(client: pg.Client, current: string, next: SchemaVersion): Promise<void> {
  if (runsAlone(next)) {
    for (const statement of next.statements) await run(client, next, statement);
    await inTransaction(client, () => recordVersion(client, current, next));
    return;
  }
  await inTransaction(client, async () => {
    for (const statement of next.statements) {
      await client.query('SAVEPOINT statement');
      await run(client, next, statement);
    }
    await recordVersion(client, current, next);
  });
}

/** SQLSTATEs of an object that exists: Temporal's own tool, killed midway, leaves such halves of a version. */
const duplicates = new Set(['42P07', '42701', '42710', '42P06', '42723']);

async function run(client: pg.Client, version: SchemaVersion, statement: string): Promise<void> {
  try {
    await client.query(statement);
  } catch (error) {
    const code = String(codeOf(error));
    const start = statement.replace(/\s+/g, ' ').slice(0, 120);
    if (duplicates.has(code)) {
      if (!runsAlone(version)) await client.query('ROLLBACK TO SAVEPOINT statement');
      log.warn('already there, continuing', { database: client.database, version: version.version, statement: start });
      return;
    }
    if (isTransient(error)) throw error;
    throw new Failure(
      `database ${client.database}, schema version ${version.version}: ${messageOf(error)} (${code}) in: ${start}`,
      'correct the named object in the database, then run the Job again: it continues with this version',
      { cause: error },
    );
  }
}

function runsAlone(version: SchemaVersion): boolean {
  return version.statements.some(runsOutsideTransaction);
}
