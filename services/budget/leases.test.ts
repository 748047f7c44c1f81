/** Leases of budgets on a real Postgres: as exact as reservations, for several processes, also those that are killed. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { event } from '@somagent/events';
import { createLogger, outboxMigration, requireIsolation, TenantDatabase } from '@somagent/kit';
import fc from 'fast-check';
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { type Budget, listBudgets, putBudget } from './administration.ts';
import { BudgetBatches } from './batches.ts';
import { type BudgetRequest, reserve, settle } from './budget.ts';
import { BudgetLeases } from './leases.ts';
import { budgetLeaseMigration, budgetMigration, grantBudgets, recallChannel } from './migration.ts';
import { returnExpired } from './sweeper.ts';
import type { SpenderNews, SpenderOrder } from './testing/spender.ts';

const passwords = { owner: 'of the owner', user: 'of the user' };
const origin = { actor: { kind: 'user', id: 'ann', client: 'console' }, requestId: 'r-1' } as const;
const log = createLogger({ service: 'test', level: 'silent' });
let postgres: TestPostgres;
/** As the gateway: a role that owns nothing. */
let database: TenantDatabase<unknown>;
let owner: TenantDatabase<unknown>;

function connectionOf(user: keyof typeof passwords) {
  const { host, port, ca } = postgres.server;
  return { host, port, user, password: passwords[user], database: 'sessions', ssl: { ca: ca ?? '' } };
}
const poolOf = (user: keyof typeof passwords, max: number) =>
  new pg.Pool({ ...connectionOf(user), max }).on('error', () => undefined);

before(async () => {
  postgres = await startPostgres({ log_statement: 'none' });
  const admin = await postgres.connect('postgres');
  for (const [role, password] of Object.entries(passwords)) {
    await admin.query(`create role "${role}" login password '${password}'`);
  }
  await admin.query('create database sessions owner owner');
  await admin.end();
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool: poolOf('owner', 1) }) });
  await outboxMigration.up(db);
  await budgetMigration.up(db);
  await requireIsolation(db);
  await grantBudgets(db, 'user');
  await sql`grant insert, select (id) on outbox to "user"`.execute(db);
  await db.destroy();
  database = new TenantDatabase(poolOf('user', 12));
  owner = new TenantDatabase(poolOf('owner', 2));
});
after(async () => {
  await Promise.all([database.destroy(), owner.destroy()]);
  await postgres.stop();
});

/** A tenant of the test's own. */
let tenants = 0;
const newTenant = () => `t${++tenants}`;
const put = (tenant: string, budget: Partial<Budget>) =>
  putBudget(
    database.of(tenant),
    { tenant, scope: 'tenant', id: tenant, period: 'total', tokens: null, costMicros: null, ...budget },
    origin,
  );
const asking = (tenant: string, tokens: number, more: Partial<BudgetRequest> = {}): BudgetRequest => ({
  ...{ tenant, team: null, persona: null, sessionId: null, requestId: randomUUID(), tokens, costMicros: 0 },
  ...more,
});
const stateOf = async (tenant: string) => {
  const [use, ...others] = await listBudgets(database.of(tenant), tenant);
  assert.ok(use && others.length === 0);
  return { used: use.used.tokens, reserved: use.reserved.tokens };
};
const inMinute = () => ({ seconds: 60 });
const used = (tokens: number) => ({ tokens, costMicros: 0 });

/** A process, as far as budgets go. */
function replica(hears = () => true, seconds = 10) {
  const exact = new BudgetBatches({ database, linger: 1 });
  const leases = new BudgetLeases({ database, exact, log, hears, seconds });
  const take = (request: BudgetRequest) => leases.draw(request, inMinute) ?? exact.reserve(request, inMinute());
  /** Asks as often as it takes until a lease is there. */
  const warm = async (tenant: string, tokens: number) => {
    for (let tries = 0; tries < 200; tries += 1) {
      const request = asking(tenant, tokens);
      const drawn = leases.draw(request, inMinute);
      const answer = await (drawn ?? exact.reserve(request, inMinute()));
      assert.equal(answer.granted, true);
      assert.equal(await exact.settle(request, used(0), []), 'settled');
      if (drawn !== undefined) return;
      await sleep(10);
    }
    assert.fail('no lease came');
  };
  return { exact, leases, take, warm };
}

test('requests that follow each other are taken from a lease, are counted exactly, and the rest is given back', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1_000_000 });
  const { leases, exact, warm } = replica();
  assert.equal(leases.draw(asking(tenant, 10), inMinute), undefined, 'the first has none');
  await warm(tenant, 10);
  let drawn = 0;
  for (let count = 0; count < 60; count += 1) {
    const request = asking(tenant, 10);
    const taken = leases.draw(request, inMinute);
    drawn += taken === undefined ? 0 : 1;
    assert.equal((await (taken ?? exact.reserve(request, inMinute()))).granted, true);
    assert.equal(await exact.settle(request, used(7), []), 'settled');
  }
  assert.ok(drawn >= 40, `${drawn} of 60`);
  assert.ok((await stateOf(tenant)).reserved > 0, 'what is leased is reserved');
  await leases.giveBack();
  assert.deepEqual(await stateOf(tenant), { used: 420, reserved: 0 });
});

test('near the end of a budget there is no lease, and the last token is had', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 500 });
  const { leases, take } = replica();
  for (let count = 0; count < 50; count += 1) {
    const request = asking(tenant, 10);
    assert.equal(leases.draw(request, inMinute), undefined);
    assert.equal((await take(request)).granted, true);
    await sleep(1);
  }
  assert.equal((await take(asking(tenant, 1))).granted, false);
  assert.deepEqual(await stateOf(tenant), { used: 0, reserved: 500 });
});

test('what fits is granted although another process has leased it, which then asks anew', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 10_000 });
  const first = replica();
  await first.warm(tenant, 10);
  const { reserved } = await stateOf(tenant);
  assert.ok(reserved > 0);
  const large = asking(tenant, 10_000);
  assert.equal((await replica().take(large)).granted, true, 'it recalls the lease');
  // The first process does not know yet.
  const request = asking(tenant, 10);
  const drawn = first.leases.draw(request, inMinute);
  assert.ok(drawn, 'it still believes in its lease');
  const answer = await drawn;
  assert.ok(!answer.granted && answer.used === 10_000, 'Postgres decides');
  assert.deepEqual(await stateOf(tenant), { used: 0, reserved: 10_000 });
  assert.equal(await first.exact.settle(large, used(9_000), []), 'settled');
  assert.equal((await first.leases.draw(asking(tenant, 10), inMinute))?.granted, true, 'there is room again');
});

test('a budget that is lowered ends leases at once, and every process that listens hears of it', async () => {
  const [tenant, other] = [newTenant(), newTenant()];
  for (const name of [tenant, other]) await put(name, { tokens: 1_000_000 });
  const { leases, warm, take } = replica();
  const listener = new pg.Client(connectionOf('user'));
  await listener.connect();
  const heard: string[] = [];
  listener.on('notification', ({ payload }) => {
    heard.push(payload ?? '');
    leases.recalled(payload);
  });
  await listener.query(`listen ${recallChannel}`);
  for (const name of [tenant, other]) await warm(name, 10);
  await put(tenant, { tokens: 5 });
  for (let tries = 0; heard.length === 0; tries += 1) {
    assert.ok(tries < 100, 'not heard within 2 s');
    await sleep(20);
  }
  await listener.end();
  assert.deepEqual(heard, [tenant]);
  assert.deepEqual(await stateOf(tenant), { used: 0, reserved: 0 });
  assert.equal(leases.draw(asking(tenant, 10), inMinute), undefined);
  assert.equal((await take(asking(tenant, 10))).granted, false);
  assert.ok(leases.draw(asking(other, 10), inMinute), 'the lease of another tenant stays');
});

test('who does not hear of recalls takes nothing from a lease, and nothing after its end', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1_000_000 });
  let hears = true;
  const { leases, warm } = replica(() => hears, 2);
  await warm(tenant, 10);
  hears = false;
  assert.equal(leases.draw(asking(tenant, 10), inMinute), undefined);
  hears = true;
  const request = asking(tenant, 10);
  assert.equal((await leases.draw(request, inMinute))?.granted, true);
  await settle(database.of(tenant), request, used(1));
  await sleep(2000);
  assert.equal(leases.draw(asking(tenant, 10), inMinute), undefined);
  for (let tries = 0; (await stateOf(tenant)).reserved > 0; tries += 1) {
    assert.ok(tries < 100, 'it was not given back by itself');
    await sleep(50);
  }
  assert.equal((await stateOf(tenant)).used, 1);
});

test('a lease ends with its day, and one that nobody ends returns', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1_000_000, period: 'day' });
  const { rows } = await sql<{ lasts: number; rest: number }>`
    select lasts, 86400 - mod(extract(epoch from clock_timestamp()), 86400)::float8 as rest
    from budget_lease(${tenant}, ${randomUUID()}, null, null, null, 10, 0, 200000, 5, 8)`.execute(database.of(tenant));
  const [{ lasts, rest } = { lasts: Number.NaN, rest: 0 }] = rows;
  assert.ok(Math.abs(lasts - rest) < 2, `${lasts} of ${rest} s`);
  assert.equal((await stateOf(tenant)).reserved, 10);
  await sql`update budget_reservation set expires_at = clock_timestamp() where tenant = ${tenant}`.execute(
    database.of(tenant),
  );
  await returnExpired(owner.platform);
  assert.equal((await stateOf(tenant)).reserved, 0);
});

test('a request of which nothing more is heard is told once, as any other', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1_000_000 });
  const { leases, warm } = replica();
  await warm(tenant, 10);
  const request = asking(tenant, 10);
  const { requestId } = request;
  const data = { sessionId: null, turnId: null, subject: 'ann', promptTokens: 0, completionTokens: 0, model: 3 };
  const actor = { kind: 'user', id: 'ann', client: null } as const;
  const unsettled = event('usage.tokens', 'tokens.used', {
    tenant,
    actor,
    requestId,
    data: { ...data, outcome: 'failed' },
  });
  assert.equal((await leases.draw(request, () => ({ seconds: 0, unsettled })))?.granted, true);
  await leases.giveBack();
  assert.deepEqual(await stateOf(tenant), { used: 0, reserved: 10 });
  await returnExpired(owner.platform);
  assert.deepEqual(await stateOf(tenant), { used: 0, reserved: 0 });
  const { rows } = await sql`select 1 from outbox where value ->> 'requestId' = ${requestId}`.execute(owner.untenanted);
  assert.equal(rows.length, 1);
});

test('the same request again is not taken from a lease twice', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1_000_000 });
  const { leases, warm } = replica();
  await warm(tenant, 10);
  const request = asking(tenant, 10);
  assert.equal((await leases.draw(request, inMinute))?.granted, true);
  assert.equal((await leases.draw(request, inMinute))?.granted, true, 'the same reservation');
  await leases.giveBack();
  assert.equal((await stateOf(tenant)).reserved, 10);
  await settle(database.of(tenant), request, used(3));
  await warm(tenant, 10);
  await assert.rejects(async () => leases.draw(request, inMinute), /has ended already/);
});

test('a database from before there were leases gets them', async () => {
  const admin = await postgres.connect('postgres');
  await admin.query('create database older owner owner');
  await admin.end();
  const older = new TenantDatabase<unknown>(
    new pg.Pool({ ...connectionOf('owner'), database: 'older', max: 2 }).on('error', () => undefined),
  );
  const db = older.platform;
  await outboxMigration.up(db);
  await budgetMigration.up(db);
  for (const made of ['trigger budget_changed on budget', 'function budget_changed', 'function budget_recall']) {
    await sql`drop ${sql.raw(made)}`.execute(db);
  }
  await sql`drop function budget_lease`.execute(db);
  await sql`alter table budget_reservation drop column lease`.execute(db);
  await budgetLeaseMigration.up(db);
  const budget = { tenant: 'acme', scope: 'tenant', id: 'acme', period: 'total', costMicros: null } as const;
  await putBudget(older.of('acme'), { ...budget, tokens: 1000 }, origin);
  const lease = sql`select 1 from budget_lease('acme', ${randomUUID()}, null, null, null, 100, 0, 10, 5, 8)`;
  assert.equal((await lease.execute(older.of('acme'))).rows.length, 1);
  assert.equal((await reserve(older.of('acme'), asking('acme', 1000), inMinute())).granted, true);
  await older.destroy();
});

const rare = ['recall', 'giveBack', 'put'] as const;
interface Step {
  readonly replica: number;
  readonly hasTeam: boolean;
  readonly tokens: number;
  readonly wait: number;
  readonly end: 'settle' | 'crash' | (typeof rare)[number];
  readonly share: number;
}
const step: fc.Arbitrary<Step> = fc.record({
  /** 0: a statement of its own; else one of two processes with leases. */
  replica: fc.integer({ min: 0, max: 2 }),
  hasTeam: fc.boolean(),
  tokens: fc.integer({ min: 0, max: 30 }),
  wait: fc.integer({ min: 0, max: 60 }),
  end: fc.oneof(
    { weight: 40, arbitrary: fc.constant('settle' as const) },
    { weight: 5, arbitrary: fc.constant('crash' as const) },
    { weight: 1, arbitrary: fc.constantFrom(...rare) },
  ),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
});

test('no order of leases, requests, recalls and changes exceeds a budget', { timeout: 120_000 }, async () => {
  let leased = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 40, maxLength: 160 }),
      fc.integer({ min: 0, max: 6000 }),
      fc.integer({ min: 0, max: 6000 }),
      async (steps, ofTenant, ofTeam) => {
        const tenant = newTenant();
        await put(tenant, { tokens: ofTenant });
        await put(tenant, { scope: 'team', id: 'blue', period: 'day', tokens: ofTeam });
        const processes = [replica(), replica()];
        // Whether there are leases must not depend on how busy the machine is.
        if (ofTenant >= 3000) await Promise.all(processes.map(({ warm }) => warm(tenant, 30)));
        const counted = { tenant: 0, team: 0 };
        const within = async () => {
          for (const { scope, tokens, used, reserved } of await listBudgets(database.of(tenant), tenant)) {
            const sum = used.tokens + reserved.tokens;
            assert.ok(sum <= Number(tokens), `${scope}: ${used.tokens} + ${reserved.tokens} of ${tokens}`);
          }
        };
        const run = async ({ replica, hasTeam, tokens, wait, end, share }: Step) => {
          await sleep(wait);
          const { leases, exact } = processes[replica - 1] ?? {};
          if (end === 'recall') return leases?.recalled(tenant);
          if (end === 'giveBack') return leases?.giveBack();
          if (end === 'put') return put(tenant, { tokens: ofTenant });
          const request = asking(tenant, tokens, { team: hasTeam ? 'blue' : null });
          const drawn = leases?.draw(request, inMinute);
          leased += drawn === undefined ? 0 : 1;
          const answer = await (drawn ??
            exact?.reserve(request, inMinute()) ??
            reserve(database.of(tenant), request, inMinute()));
          if (!answer.granted || end === 'crash') return;
          const actual = Math.floor(tokens * share);
          const settled =
            exact?.settle(request, used(actual), []) ?? settle(database.of(tenant), request, used(actual));
          assert.equal(await settled, 'settled');
          counted.tenant += actual;
          if (hasTeam) counted.team += actual;
        };
        await Promise.all([...steps.map(run), within(), sleep(12).then(within)]);
        await within();
        await Promise.all(processes.map(({ leases }) => leases.giveBack()));
        const { rows } = await sql<{ scope: 'tenant' | 'team'; used: string; held: string; open: string }>`
          select scope, used_tokens as used, held_tokens as held, (select coalesce(sum(r.tokens), 0)
            from budget_reservation r where r.tenant = u.tenant and r.state = 'held' and not r.lease
              and u.scope = any (r.scopes)) as open
          from budget_use u where tenant = ${tenant}`.execute(database.of(tenant));
        for (const { scope, used, held, open } of rows) {
          assert.equal(Number(used), counted[scope], `${scope} counts what was settled`);
          assert.equal(held, open, `${scope} holds what was not ended, and nothing else`);
        }
      },
    ),
    { numRuns: 25, endOnFailure: true },
  );
  assert.ok(leased > 50, `${leased} were taken from leases`);
});

test('several processes that never hear of recalls, one of them killed, stay within a budget', {
  timeout: 120_000,
}, async () => {
  const tenant = newTenant();
  const limit = 40_000;
  await put(tenant, { tokens: limit });
  await put(tenant, { scope: 'team', id: 'blue', tokens: 15_000 });
  let told = 0;
  const ends: NonNullable<SpenderNews['end']>[] = [];
  const spenders = ['blue', null, null].map((team) => {
    const child = fork(join(import.meta.dirname, 'testing', 'spender.ts'));
    child.on('message', ({ used = 0, end }: SpenderNews) => {
      told += used;
      if (end !== undefined) ends.push(end);
    });
    const order = { connection: connectionOf('user'), tenant, team, most: 40, requests: 500, clients: 8 };
    child.send(order satisfies SpenderOrder);
    return child;
  });
  const exits = spenders.map((child) => once(child, 'exit'));
  let runs = true;
  const watch = (async () => {
    while (runs) {
      for (const { scope, tokens, used, reserved } of await listBudgets(database.of(tenant), tenant)) {
        assert.ok(used.tokens + reserved.tokens <= Number(tokens), `${scope}: ${used.tokens} + ${reserved.tokens}`);
      }
      await sleep(5);
    }
  })();
  while (told < 1000 && spenders.every(({ exitCode }) => exitCode === null)) await sleep(5);
  spenders[2]?.kill('SIGKILL');
  await Promise.all(exits);
  runs = false;
  await watch;
  assert.equal(ends.length, 2);
  for (const { leased, exact, refused } of ends) {
    assert.ok(leased > 20 && exact > 0 && leased + exact + refused === 500, JSON.stringify(ends));
  }
  // What the killed one has left expires.
  await sleep(2100);
  await sql`select budget_recall(${tenant}, 500)`.execute(database.of(tenant));
  const [team, whole] = (await listBudgets(database.of(tenant), tenant)).toSorted((a, b) =>
    a.scope.localeCompare(b.scope),
  );
  assert.ok(whole && team);
  assert.equal(whole.reserved.tokens, 0);
  assert.ok(whole.used.tokens >= told && whole.used.tokens <= limit && team.used.tokens <= 15_000);
  const rest = asking(tenant, limit - whole.used.tokens);
  assert.equal((await replica().take(rest)).granted, true, 'what is left can be had to the last token');
});
