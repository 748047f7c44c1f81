/** Temporal's schema Job, killed midway on the cluster, goes on and ends with the schema of an undisturbed run. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { get, kubectl, kubectlWith } from './support/kubectl.ts';
import { query } from './support/postgres.ts';
import { eventually } from './support/wait.ts';

const namespace = 'local-runtime';
const suffix = randomBytes(3).toString('hex');
const databases = {
  TEMPORAL_DATABASE: `schema_${suffix}`,
  TEMPORAL_VISIBILITY_DATABASE: `schema_visibility_${suffix}`,
};
const name = `temporal-schema-${suffix}`;

interface Job {
  readonly spec: { readonly template: PodTemplate };
}
interface PodTemplate {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: { readonly containers: readonly { readonly env: readonly { name: string; value: string }[] }[] };
}

/** The platform's own Job, on databases of this test. */
async function jobOnOwnDatabases(): Promise<object> {
  const { items } = await get<{ items: Job[] }>('job', '-n', namespace, '-l', 'app.kubernetes.io/component=schema');
  const template = items[0]?.spec.template;
  assert.ok(template, 'the platform has no schema Job');
  const { labels } = template.metadata;
  const own = Object.fromEntries(Object.entries(labels).filter(([key]) => !/controller-uid|job-name/.test(key)));
  const containers = template.spec.containers.map((container) => ({
    ...container,
    env: container.env.map((entry) => ({
      ...entry,
      value: databases[entry.name as keyof typeof databases] ?? entry.value,
    })),
  }));
  const pod = { metadata: { labels: own }, spec: { ...template.spec, containers } };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name, namespace },
    spec: { backoffLimit: 10, template: pod },
  };
}

const inDatabase = (database: string, sql: string) => query(`\\connect ${database}\n${sql}`);

/** Versions applied so far; none while their table is not there yet. */
async function versions(database: string): Promise<string[]> {
  const there = await inDatabase(database, `select to_regclass('schema_update_history') is not null`);
  return there[0] === 't' ? inDatabase(database, 'select new_version from schema_update_history order by 1') : [];
}

/** Stops the Job midway for ten seconds: once the first version is there, nobody can write that of the next. */
const freeze = (database: string) =>
  inDatabase(
    database,
    `do $$ begin
      while not exists (select from pg_class where relname = 'schema_version') loop perform pg_sleep(0.005); end loop;
      lock table schema_version in access exclusive mode;
      perform pg_sleep(10);
    end $$;`,
  );

const tables = (database: string) =>
  inDatabase(
    database,
    `select table_name || ' ' || column_name || ' ' || data_type from information_schema.columns
    where table_schema = 'public' order by 1`,
  );

describe('the schema Job', () => {
  before(async () => {
    for (const database of Object.values(databases)) await query(`create database ${database} owner temporal`);
  });

  after(async () => {
    await kubectl('delete', 'job', name, '-n', namespace, '--ignore-not-found', '--cascade=foreground');
    for (const database of Object.values(databases)) await query(`drop database ${database} with (force)`);
  });

  it('goes on after its pod was killed midway', { timeout: 180_000 }, async () => {
    const expected = await versions('temporal');
    const frozen = freeze(databases.TEMPORAL_DATABASE);
    await eventually('the freeze waits for its moment', 20, async () => {
      const waiting = await query(
        `select 1 from pg_stat_activity where datname = '${databases.TEMPORAL_DATABASE}' and query like 'do $$%'`,
      );
      return waiting.length > 0 ? true : undefined;
    });
    await kubectlWith(await jobOnOwnDatabases(), 'apply', '-f', '-');
    const applied = await eventually('some versions applied', 60, async () => {
      const found = await versions(databases.TEMPORAL_DATABASE);
      return found.length > 0 ? found : undefined;
    });
    assert.ok(applied.length < expected.length, `not midway: ${applied.length} of ${expected.length} versions`);
    await kubectl('delete', 'pod', '-n', namespace, '-l', `job-name=${name}`, '--grace-period=0', '--force');
    await frozen;
    await kubectl('wait', '-n', namespace, '--for=condition=Complete', `job/${name}`, '--timeout=120s');
    assert.deepEqual(await versions(databases.TEMPORAL_DATABASE), expected);
    assert.deepEqual(await tables(databases.TEMPORAL_DATABASE), await tables('temporal'));
    assert.deepEqual(await tables(databases.TEMPORAL_VISIBILITY_DATABASE), await tables('temporal_visibility'));
  });
});
