/** Limits on a real Postgres: several pods, each with a pool of its own. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { createLogger, TenantDatabase } from '@somagent/kit';
import fc from 'fast-check';
import { Kysely, PostgresDialect } from 'kysely';
import { type Limit, PostgresQuota } from './quota.ts';
import { type QuotaTables, quotaMigration } from './quota-migration.ts';

const log = createLogger({ service: 'test', level: 'silent' });
/** A window that does not end while the test runs. */
const windowSeconds = 1_000_000_000;
let postgres: TestPostgres;
const databases: TenantDatabase<QuotaTables>[] = [];

const service = { username: 'things', password: 'a password of this test' };
const connection = (credentials = service) => postgres.pool('things', credentials);
const openPod = () => {
  const database = new TenantDatabase<QuotaTables>(connection());
  databases.push(database);
  return database;
};

before(async () => {
  postgres = await startPostgres();
  const admin = await postgres.connect('postgres');
  await admin.query(`create role things login password '${service.password}'`);
  await admin.query('create database things owner things');
  await admin.end();
  const owner = new Kysely<unknown>({ dialect: new PostgresDialect({ pool: connection() }) });
  await quotaMigration.up(owner);
  await owner.destroy();
});
after(async () => {
  await Promise.all(databases.map((database) => database.destroy()));
  await postgres.stop();
});

const limitOf = (name: string, allowed: number, per: Limit['per'] = 'tenant'): Limit => ({
  name,
  per,
  windowSeconds,
  allowed,
});
const passed = async (quota: PostgresQuota, requests: number, subject = 'ann', tenant = 'acme') => {
  const answers = await Promise.all(Array.from({ length: requests }, () => quota.take(tenant, subject)));
  return answers.filter((answer) => answer === null).length;
};

test('one pod serves exactly the limit, then says how long to wait', async () => {
  const quota = new PostgresQuota({ database: openPod(), limits: [limitOf('one', 137)], log });
  assert.equal(await passed(quota, 500), 137);
  const reached = await quota.take('acme', 'ann');
  assert.equal(reached?.limit, `at most 137 requests of a tenant in ${windowSeconds} s`);
  assert.ok(reached.retryAfterSeconds > 0 && reached.retryAfterSeconds <= windowSeconds);
  assert.equal(await quota.take('globex', 'ann'), null, 'another tenant has its own');
});

test('pods never serve more than the limit together, whatever they ask at once', { timeout: 60_000 }, async () => {
  const pods = [openPod(), openPod(), openPod()];
  let run = 0;
  const requests = fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 90 }),
      fc.tuple(requests, requests, requests),
      async (allowed, waves) => {
        run += 1;
        const limits = [limitOf(`run-${run}`, allowed)];
        const quotas = pods.map((database) => new PostgresQuota({ database, limits, log }));
        const served = await Promise.all(
          quotas.map(async (quota, pod) => {
            let sum = 0;
            for (const wave of waves[pod] ?? []) sum += await passed(quota, wave);
            return sum;
          }),
        );
        const total = served.reduce((sum, count) => sum + count, 0);
        const asked = waves.flat().reduce((sum, count) => sum + count, 0);
        assert.ok(total <= allowed, `served ${total} of ${allowed}`);
        // What idle pods hold back is at most a block each, so nobody is refused much too early.
        const held = (pods.length - 1) * Math.max(1, Math.floor(allowed / 20));
        assert.ok(total >= Math.min(asked, allowed - held), `served ${total} of ${allowed}, asked ${asked}`);
      },
    ),
    { numRuns: 40 },
  );
});

test('a request takes from every limit or from none', async () => {
  const limits = [limitOf('tenant-both', 10), limitOf('subject-both', 4, 'subject')];
  const quota = new PostgresQuota({ database: openPod(), limits, log });
  assert.equal(await passed(quota, 8, 'ann'), 4);
  assert.equal(await passed(quota, 8, 'bob'), 4);
  assert.equal(await passed(quota, 8, 'cem'), 2, 'the refused requests of ann and bob have cost the tenant nothing');
  assert.match((await quota.take('acme', 'dan'))?.limit ?? '', /^at most 10 requests of a tenant/);
});

test('a block is one statement, and requests within it are none', async () => {
  const quota = new PostgresQuota({ database: openPod(), limits: [limitOf('blocks', 2000)], log });
  const statements = () => postgres.log().split('insert into quota_window').length;
  const first = statements();
  assert.equal(await passed(quota, 40), 40);
  assert.equal(statements() - first, 1);
});

test('a tenant can have a limit of its own, also none', async () => {
  const database = openPod();
  await database
    .of('acme')
    .insertInto('quota_limit')
    .values({ tenant: 'acme', limit_name: 'own', allowed: '3' })
    .execute();
  await database
    .of('globex')
    .insertInto('quota_limit')
    .values({ tenant: 'globex', limit_name: 'own', allowed: '0' })
    .execute();
  const quota = new PostgresQuota({ database, limits: [limitOf('own', 100)], log });
  assert.equal(await passed(quota, 10, 'ann', 'acme'), 3);
  assert.equal(await passed(quota, 10, 'ann', 'globex'), 0);
});

test('a new window begins with the whole limit, and a lease does not outlive its own', async () => {
  const limits = [{ ...limitOf('short', 5), windowSeconds: 1 }];
  const quota = new PostgresQuota({ database: openPod(), limits, log });
  let served = 0;
  const windows = new Set<number>();
  const until = performance.now() + 2500;
  while (performance.now() < until) {
    if ((await quota.take('acme', 'ann')) === null) {
      served += 1;
      windows.add(Math.floor(Date.now() / 1000));
    }
    await new Promise(setImmediate);
  }
  assert.ok(windows.size >= 2);
  assert.ok(served <= windows.size * 5, `${served} in ${windows.size} windows`);
  assert.ok(served >= (windows.size - 1) * 5);
});

test('without Postgres a lease is spent to its end, then nothing is served', async () => {
  const database = new TenantDatabase<QuotaTables>(connection());
  const quota = new PostgresQuota({ database, limits: [limitOf('away', 20 * 30)], log });
  assert.equal(await passed(quota, 1), 1);
  await database.destroy();
  let served = 0;
  const spend = async () => {
    while ((await quota.take('acme', 'ann')) === null) served += 1;
  };
  await assert.rejects(spend(), { type: 'unavailable' });
  assert.equal(served, 29);
});
