import type pg from 'pg';
import type { SchemaVersion } from './versions.ts';

/**
 * The two tables in which Temporal's server and its SQL tool look for the schema's version. Texts follow
 * go.temporal.io/server common/persistence/sql/sqlplugin/postgresql/admin.go.
 */
const createTables = [
  `CREATE TABLE IF NOT EXISTS schema_version(version_partition INT not null, db_name VARCHAR(255) not null,
     creation_time TIMESTAMP, curr_version VARCHAR(64), min_compatible_version VARCHAR(64),
     PRIMARY KEY (version_partition, db_name))`,
  `CREATE TABLE IF NOT EXISTS schema_update_history(version_partition INT not null, year int not null,
     month int not null, update_time TIMESTAMP not null, description VARCHAR(255), manifest_md5 VARCHAR(64),
     new_version VARCHAR(64), old_version VARCHAR(64),
     PRIMARY KEY (version_partition, year, month, update_time))`,
];

const initial = { version: '0.0', minCompatibleVersion: '0.0', description: 'initial version', manifestMd5: '' };

/** The recorded version, or undefined when the database was never set up. */
async function readVersion(client: pg.Client): Promise<string | undefined> {
  const { rows } = await client.query<{ curr_version: string }>(
    'SELECT curr_version FROM schema_version WHERE version_partition = 0 AND db_name = current_database()',
  );
  return rows[0]?.curr_version;
}

/** Creates the tables and the row of version 0.0 when absent, and returns the recorded version. */
export function ensureHistory(client: pg.Client): Promise<string> {
  return inTransaction(client, async () => {
    for (const statement of createTables) await client.query(statement);
    const version = await readVersion(client);
    if (version !== undefined) return version;
    await recordVersion(client, '0', initial);
    return initial.version;
  });
}

/** Writes what Temporal's tool writes after an update. To be called inside the transaction of that update. */
export async function recordVersion(
  client: pg.Client,
  oldVersion: string,
  next: Omit<SchemaVersion, 'statements'>,
): Promise<void> {
  await client.query(
    `INSERT INTO schema_version (version_partition, db_name, creation_time, curr_version, min_compatible_version)
     VALUES (0, current_database(), clock_timestamp() AT TIME ZONE 'UTC', $1, $2)
     ON CONFLICT (version_partition, db_name) DO UPDATE SET creation_time = excluded.creation_time,
       curr_version = excluded.curr_version, min_compatible_version = excluded.min_compatible_version`,
    [next.version, next.minCompatibleVersion],
  );
  await client.query(
    `INSERT INTO schema_update_history
       (version_partition, year, month, update_time, old_version, new_version, manifest_md5, description)
     SELECT 0, extract(year FROM now), extract(month FROM now), now, $1, $2, $3, $4
     FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now) AS clock`,
    [oldVersion, next.version, next.manifestMd5, next.description],
  );
}

/** Commits what work did, or nothing of it. */
export async function inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('BEGIN');
  try {
    const result = await work();
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}
