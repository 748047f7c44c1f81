/** Budgets on a real Postgres: exact, in every scope, for any number of requests at once, also those that are killed. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { event } from '@somagent/events';
import { createLogger, outboxMigration, requireIsolation, TenantDatabase } from '@somagent/kit';
import fc from 'fast-check';
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { type Budget, listBudgets, putBudget, removeBudget } from './administration.ts';
import { BudgetBatches } from './batches.ts';
import { type BudgetRequest, type Refusal, release, reserve, settle } from './budget.ts';
import { budgetMigration, grantBudgets } from './migration.ts';
import { BudgetSweeper, returnExpired } from './sweeper.ts';

const passwords = { owner: 'of the owner', user: 'of the user' };
const origin = { actor: { kind: 'user', id: 'ann', client: 'console' }, requestId: 'r-1' } as const;
let postgres: TestPostgres;
/** As the gateway: a role that owns nothing. */
let database: TenantDatabase<unknown>;
let owner: TenantDatabase<unknown>;

function poolOf(user: keyof typeof passwords, max = 6): pg.Pool {
  const { host, port, ca } = postgres.server;
  const pool = new pg.Pool({
    host,
    port,
    user,
    password: passwords[user],
    database: 'sessions',
    ssl: { ca: ca ?? '' },
    max,
  });
  return pool.on('error', () => undefined);
}

before(async () => {
  postgres = await startPostgres({ log_statement: 'none' });
  const admin = await postgres.connect('postgres');
  for (const [role, password] of Object.entries(passwords)) {
    await admin.query(`create role "${role}" login password '${password}'`);
  }
  await admin.query('create database sessions owner owner');
  await admin.end();
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool: poolOf('owner') }) });
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
const take = (request: BudgetRequest, seconds = 60) => reserve(database.of(request.tenant), request, { seconds });
const refused = async (request: BudgetRequest): Promise<Refusal> => {
  const answer = await take(request);
  assert.equal(answer.granted, false);
  return answer;
};
const only = async (tenant: string) => {
  const [use, ...others] = await listBudgets(database.of(tenant), tenant);
  assert.ok(use && others.length === 0);
  return use;
};
const usedEvent = (tenant: string, requestId: string, outcome: 'completed' | 'failed') =>
  event('usage.tokens', 'tokens.used', {
    tenant,
    actor: { kind: 'user', id: 'ann', client: null },
    requestId,
    data: {
      ...{ sessionId: null, turnId: null, subject: 'ann', promptTokens: 1, completionTokens: 2, model: 3 },
      outcome,
    },
  });
const told = async (requestId: string): Promise<readonly string[]> => {
  const { rows } = await sql<{ outcome: string }>`
    select value #>> '{data,outcome}' as outcome from outbox where value ->> 'requestId' = ${requestId}`.execute(
    owner.untenanted,
  );
  return rows.map(({ outcome }) => outcome);
};

test('without a budget everything is granted, with one exactly what it has', async () => {
  const tenant = newTenant();
  assert.equal((await take(asking(tenant, 1_000_000))).granted, true);
  await put(tenant, { tokens: 100 });
  assert.equal((await take(asking(tenant, 60))).granted, true);
  const refusal = await refused(asking(tenant, 41));
  assert.deepEqual(
    [
      refusal.scope,
      refusal.id,
      refusal.period,
      refusal.unit,
      refusal.limit,
      refusal.used,
      refusal.asked,
      refusal.renewsAt,
    ],
    ['tenant', tenant, 'total', 'tokens', 100, 60, 41, null],
  );
  assert.equal(
    refusal.message,
    `the total budget of tenant ${tenant} is 100 tokens, 60 of them are used or reserved and the request needs up to ` +
      '41; it never renews: ask for at most 40 tokens (fewer max_tokens, a shorter prompt), or have the budget raised ' +
      `(soma budget set tenant ${tenant} total)`,
  );
  assert.equal((await take(asking(tenant, 40))).granted, true);
});

test('what is settled counts, what was reserved beyond it is free again, and no request is charged or told twice', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 100, costMicros: 1000 });
  const request = asking(tenant, 80, { costMicros: 900 });
  await take(request);
  const events = [usedEvent(tenant, request.requestId, 'completed')];
  assert.equal(await settle(database.of(tenant), request, { tokens: 30, costMicros: 200 }, events), 'settled');
  const again = [usedEvent(tenant, request.requestId, 'completed')];
  assert.equal(await settle(database.of(tenant), request, { tokens: 30, costMicros: 200 }, again), 'repeated');
  assert.equal(await release(database.of(tenant), request, again), 'repeated');
  assert.deepEqual(await told(request.requestId), ['completed']);
  const { used, reserved } = await only(tenant);
  assert.deepEqual(
    [used, reserved],
    [
      { tokens: 30, costMicros: 200 },
      { tokens: 0, costMicros: 0 },
    ],
  );
  await assert.rejects(take(request), /has ended already/);
  const other = asking(tenant, 70, { costMicros: 800 });
  await take(other);
  assert.equal(await release(database.of(tenant), other), 'released');
  assert.deepEqual((await only(tenant)).used, { tokens: 30, costMicros: 200 });
  assert.equal(await settle(database.of(tenant), asking(tenant, 1), { tokens: 1, costMicros: 0 }, again), 'unknown');
  assert.deepEqual(await told(request.requestId), ['completed']);
});

test('a request waits for one that has reserved and not yet committed, and sees what it took', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 100 });
  // From now on its use is a row.
  await take(asking(tenant, 0));
  let second: ReturnType<typeof take> | undefined;
  await database
    .of(tenant)
    .transaction()
    .execute(async (rows) => {
      assert.equal((await reserve(rows, asking(tenant, 60))).granted, true);
      second = take(asking(tenant, 60));
      assert.equal(await Promise.race([second, sleep(200, 'waits')]), 'waits');
    });
  const answer = await second;
  assert.deepEqual([answer?.granted, answer && 'used' in answer && answer.used], [false, 60]);
});

test('what a request costs does not grow with the sessions that its tenant has had', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1_000_000 });
  await put(tenant, { scope: 'session', id: '*', tokens: 1000 });
  const read = await database
    .of(tenant)
    .transaction()
    .execute(async (one) => {
      const request = async () => {
        const asked = asking(tenant, 5, { sessionId: randomUUID() });
        assert.equal((await reserve(one, asked)).granted, true);
        const used = [usedEvent(tenant, asked.requestId, 'completed')];
        assert.equal(await settle(one, asked, { tokens: 5, costMicros: 0 }, used), 'settled');
      };
      const reads = async () => {
        const { rows } = await sql<{ read: string }>`
          select sum(pg_stat_get_xact_tuples_fetched(t::regclass) + pg_stat_get_xact_tuples_returned(t::regclass)) as read
          from unnest(array['budget_use', 'budget_reservation']) t`.execute(one);
        return Number(rows[0]?.read);
      };
      // A connection plans once, while there is little, and keeps its plan.
      for (let count = 0; count < 12; count += 1) await request();
      await sql`
        insert into budget_use (tenant, scope, id, period, starts_at)
          select ${tenant}, 'session', gen_random_uuid()::text, 'total', 'epoch' from generate_series(1, 3000)`.execute(
        one,
      );
      await sql`
        insert into budget_reservation
          select ${tenant}, gen_random_uuid(), 'settled', 1, 0, '{}', '{}', '{}', '{}', clock_timestamp()
          from generate_series(1, 3000)`.execute(one);
      const before = await reads();
      await request();
      return (await reads()) - before;
    });
  assert.ok(read < 100, `${read} rows were read`);
});

test('a reservation is planned as what it is, one row: for thousands the server would compile each statement', async () => {
  const { rows } = await sql<{ proname: string; prorows: number }>`
    select proname, prorows from pg_proc where proname in ('budget_reserve', 'budget_settle') order by proname`.execute(
    owner.untenanted,
  );
  assert.deepEqual(rows, [
    { proname: 'budget_reserve', prorows: 1 },
    { proname: 'budget_settle', prorows: 1 },
  ]);
});

test('money stops as tokens do', async () => {
  const tenant = newTenant();
  await put(tenant, { costMicros: 500 });
  assert.equal((await take(asking(tenant, 1_000_000, { costMicros: 400 }))).granted, true);
  const { unit, limit, used, asked } = await refused(asking(tenant, 1, { costMicros: 101 }));
  assert.deepEqual([unit, limit, used, asked], ['costMicros', 500, 400, 101]);
});

test('the same request again is the same reservation', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 100 });
  const request = asking(tenant, 80);
  const first = await take(request, 1);
  const second = await take(request, 60);
  assert.ok(first.granted && second.granted && second.expiresAt > first.expiresAt, 'it lasts longer now');
  assert.equal((await only(tenant)).reserved.tokens, 80);
});

test('every scope counts, all or none of them, and one of each is for whoever has none of its own', async () => {
  const tenant = newTenant();
  const session = randomUUID();
  await put(tenant, { tokens: 1000 });
  await put(tenant, { scope: 'team', id: 'blue', tokens: 500, period: 'month' });
  await put(tenant, { scope: 'persona', id: '*', tokens: 300, period: 'day' });
  await put(tenant, { scope: 'persona', id: 'rich', tokens: 900, period: 'day' });
  await put(tenant, { scope: 'session', id: '*', tokens: 100 });
  const whole = { team: 'blue', persona: 'poor', sessionId: session };
  assert.equal((await take(asking(tenant, 90, whole))).granted, true);
  const second = await refused(asking(tenant, 11, whole));
  assert.deepEqual([second.scope, second.id, second.used], ['session', session, 90]);
  assert.equal((await take(asking(tenant, 100, { ...whole, sessionId: randomUUID() }))).granted, true);
  const third = await refused(asking(tenant, 120, { persona: 'poor' }));
  assert.deepEqual([third.scope, third.id, third.period, third.used], ['persona', 'poor', 'day', 190]);
  assert.ok(third.renewsAt && third.renewsAt.getTime() % 86_400_000 === 0, 'at midnight by UTC');
  const fourth = await refused(asking(tenant, 311, { team: 'blue', persona: 'rich' }));
  assert.deepEqual([fourth.scope, fourth.id, fourth.used], ['team', 'blue', 190]);
  assert.match(fourth.fix, /^ask for at most 310 tokens/);
  assert.equal(fourth.renewsAt?.getUTCDate(), 1);
  assert.equal(
    (await take(asking(tenant, 810, { persona: 'rich' }))).granted,
    true,
    'refused requests have cost nothing',
  );
  assert.equal((await refused(asking(tenant, 1))).scope, 'tenant');
});

test('a period that has ended counts no more, and one that began settles in its own', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 100, period: 'day' });
  const request = asking(tenant, 100);
  await take(request);
  await sql`
    with moved as (update budget_use set starts_at = starts_at - interval '1 day' where tenant = ${tenant})
    update budget_reservation set starts = array[starts[1] - interval '1 day'] where tenant = ${tenant}`.execute(
    database.of(tenant),
  );
  assert.equal((await take(asking(tenant, 100))).granted, true);
  assert.equal(await settle(database.of(tenant), request, { tokens: 50, costMicros: 0 }), 'settled');
  assert.deepEqual((await only(tenant)).used.tokens, 0);
});

test('a reservation that nobody ends returns, is told, and charged if its request ends all the same', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 100 });
  const [killed, late] = [asking(tenant, 50), asking(tenant, 50)];
  for (const request of [killed, late]) {
    const unsettled = usedEvent(tenant, request.requestId, 'failed');
    await reserve(database.of(tenant), request, { seconds: 1, unsettled });
  }
  assert.equal((await refused(asking(tenant, 1))).used, 100);
  await sleep(1100);
  assert.equal((await take(asking(tenant, 60))).granted, true, 'who needs the room takes it back');
  assert.deepEqual(await told(killed.requestId), ['failed']);
  assert.equal(
    await settle(database.of(tenant), late, { tokens: 20, costMicros: 0 }, [
      usedEvent(tenant, late.requestId, 'completed'),
    ]),
    'late',
  );
  assert.deepEqual(await told(late.requestId), ['failed'], 'told once');
  const { used, reserved } = await only(tenant);
  assert.deepEqual([used.tokens, reserved.tokens], [20, 60]);
});

test('the sweeper returns for every tenant, and only the owner can sweep', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 100 });
  await take(asking(tenant, 100), 0);
  assert.equal(await returnExpired(database.of(newTenant())), 0, 'of another tenant nothing is seen');
  assert.equal(await returnExpired(database.platform), 0, 'nor does another role see all');
  const sweeper = new BudgetSweeper({
    rows: owner.platform,
    interval: 10,
    log: createLogger({ service: 'test', level: 'silent' }),
  });
  sweeper.start();
  for (let tries = 0; (await only(tenant)).reserved.tokens > 0; tries += 1) {
    assert.ok(tries < 200, 'not within 4 s');
    await sleep(20);
  }
  await sweeper.stop();
});

test('a tenant sees and changes its own budgets only, and each change is told', async () => {
  const [tenant, stranger] = [newTenant(), newTenant()];
  await put(tenant, { tokens: 5 });
  assert.deepEqual(await listBudgets(database.of(stranger), tenant), []);
  assert.equal(
    await removeBudget(database.of(stranger), { tenant, scope: 'tenant', id: tenant, period: 'total' }, origin),
    false,
  );
  await assert.rejects(
    putBudget(
      database.of(stranger),
      { tenant, scope: 'tenant', id: tenant, period: 'total', tokens: 1, costMicros: null },
      origin,
    ),
    /row-level security/,
  );
  assert.equal((await take(asking(stranger, 1_000))).granted, true);
  await put(tenant, { tokens: 7, costMicros: 9 });
  assert.equal(
    await removeBudget(database.of(tenant), { tenant, scope: 'tenant', id: tenant, period: 'total' }, origin),
    true,
  );
  assert.deepEqual(await listBudgets(database.of(tenant), tenant), []);
  const { rows } = await sql<{ told: unknown }>`
    select jsonb_build_array(value ->> 'type', value #> '{data,tokens}', value #> '{data,costMicros}') as told
    from outbox where value ->> 'tenant' = ${tenant} order by seq`.execute(owner.untenanted);
  assert.deepEqual(
    rows.map(({ told }) => told),
    [
      ['budget.set', 5, null],
      ['budget.set', 7, 9],
      ['budget.removed', null, null],
    ],
  );
});

test('a bound that is no whole number is refused before it is asked', async () => {
  for (const tokens of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60]) {
    await assert.rejects(take(asking('acme', tokens)), /tokens is .*: give a whole number/);
  }
});

test('requests that come together share commits, in two replicas, and each is answered and told by itself', async () => {
  const tenant = newTenant();
  await put(tenant, { tokens: 1000 });
  let statements = 0;
  const counting = {
    of: (name: string) => {
      statements += 1;
      return database.of(name);
    },
  };
  const replicas = [new BudgetBatches({ database: counting }), new BudgetBatches({ database: counting })] as const;
  const requests = Array.from({ length: 200 }, () => asking(tenant, 10));
  const replicaOf = (index: number) => replicas[index % 2 === 0 ? 0 : 1];
  const answers = await Promise.all(requests.map((request, index) => replicaOf(index).reserve(request)));
  const granted = requests.filter((_, index) => answers[index]?.granted);
  assert.equal(granted.length, 100, 'exactly what there is');
  assert.deepEqual(
    answers.map((answer, index) => (answer.granted ? answer.requestId : requests[index]?.requestId)),
    requests.map(({ requestId }) => requestId),
    'each has its own answer',
  );
  assert.ok(statements < 60, `${statements} statements for 200 requests`);
  const used = (index: number) => index % 11;
  const ended = granted.map((request, index) =>
    replicaOf(index).settle(request, { tokens: used(index), costMicros: 0 }, [
      usedEvent(tenant, request.requestId, 'completed'),
    ]),
  );
  assert.deepEqual(new Set(await Promise.all(ended)), new Set(['settled']));
  assert.ok(statements < 70, `${statements} statements with 100 settlements`);
  for (const { requestId } of granted) assert.deepEqual(await told(requestId), ['completed']);
  const sum = granted.reduce((total, _, index) => total + used(index), 0);
  const { used: counted, reserved } = await only(tenant);
  assert.deepEqual([counted.tokens, reserved.tokens], [sum, 0]);

  const [old] = granted;
  assert.ok(old);
  const fresh = [asking(tenant, 1), asking(tenant, 1)];
  const mixed = await Promise.allSettled([...fresh, old, asking(tenant, -1)].map((one) => replicas[0].reserve(one)));
  assert.deepEqual(
    mixed.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'rejected'],
    'a request that cannot be spoils no other',
  );
  const again = [usedEvent(tenant, old.requestId, 'failed')];
  assert.equal(await replicas[1].settle(old, { tokens: 5, costMicros: 0 }, again), 'repeated');
  assert.deepEqual(await told(old.requestId), ['completed']);
});

test('a batch that the database refuses is refused to each of its requests, and the next one is tried', async () => {
  const tenant = newTenant();
  let away = true;
  // Nobody listens there.
  const gone = new TenantDatabase(new pg.Pool({ host: '127.0.0.1', port: 1 }));
  const batches = new BudgetBatches({ database: { of: (name) => (away ? gone : database).of(name) } });
  const ask = () => Promise.allSettled([asking(tenant, 1), asking(tenant, 1)].map((one) => batches.reserve(one)));
  assert.deepEqual(new Set((await ask()).map(({ status }) => status)), new Set(['rejected']));
  away = false;
  assert.deepEqual(new Set((await ask()).map(({ status }) => status)), new Set(['fulfilled']));
  await gone.destroy();
});

interface Step {
  /** 0: a statement of its own; else one of two replicas that make batches. */
  readonly replica: number;
  readonly scopes: number;
  readonly tokens: number;
  readonly end: 'settle' | 'release' | 'crash' | 'kill';
  readonly share: number;
}
const step: fc.Arbitrary<Step> = fc.record({
  replica: fc.integer({ min: 0, max: 2 }),
  scopes: fc.integer({ min: 0, max: 7 }),
  tokens: fc.integer({ min: 0, max: 40 }),
  end: fc.constantFrom('settle', 'settle', 'release', 'crash', 'kill'),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
});

/** A client that is killed with its request under way: the server may or may not have reserved. */
async function kill(request: BudgetRequest): Promise<void> {
  const { host, port, ca } = postgres.server;
  const client = new pg.Client({
    host,
    port,
    user: 'user',
    password: passwords.user,
    database: 'sessions',
    ssl: { ca: ca ?? '' },
  });
  client.on('error', () => undefined);
  await client.connect();
  await client.query(`select set_config('soma.tenant', '${request.tenant}', false)`);
  const { tenant, requestId, team, persona, sessionId, tokens } = request;
  client
    .query('select * from budget_reserve($1, $2, $3, $4, $5, $6, 0, 1, null)', [
      tenant,
      requestId,
      team,
      persona,
      sessionId,
      tokens,
    ])
    .catch(() => undefined);
  await new Promise(setImmediate);
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

test('no number of requests at once exceeds any budget, whichever way they end', { timeout: 120_000 }, async () => {
  const limit = fc.integer({ min: 0, max: 120 });
  const replicas = [1, 2].map(() => new BudgetBatches({ database, linger: 1 }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 5, maxLength: 40 }),
      fc.record({ tenant: limit, team: limit, persona: limit, session: limit }),
      async (steps, limits) => {
        const tenant = newTenant();
        const session = randomUUID();
        await put(tenant, { tokens: limits.tenant });
        await put(tenant, { scope: 'team', id: 'blue', period: 'day', tokens: limits.team });
        await put(tenant, { scope: 'persona', id: '*', period: 'month', tokens: limits.persona });
        await put(tenant, { scope: 'session', id: session, tokens: limits.session });
        const counted = { tenant: 0, team: 0, persona: 0, session: 0 };
        const most = async () => {
          for (const { scope, tokens, used, reserved } of await listBudgets(database.of(tenant), tenant)) {
            assert.ok(
              used.tokens + reserved.tokens <= Number(tokens),
              `${scope}: ${used.tokens} + ${reserved.tokens} of ${tokens}`,
            );
          }
        };
        await Promise.all([
          most(),
          ...steps.map(async ({ replica, scopes, tokens, end, share }) => {
            const batches = replicas[replica - 1];
            const [team, persona, sessionId] = [
              scopes & 1 ? 'blue' : null,
              scopes & 2 ? 'agent' : null,
              scopes & 4 ? session : null,
            ];
            const request = asking(tenant, tokens, { team, persona, sessionId });
            if (end === 'kill') return kill(request);
            const seconds = end === 'crash' ? 1 : 60;
            const answer = await (batches?.reserve(request, { seconds }) ?? take(request, seconds));
            if (!answer.granted || end === 'crash') return;
            if (end === 'release') return void (await release(database.of(tenant), request));
            const actual = Math.floor(tokens * share);
            const used = { tokens: actual, costMicros: 0 };
            const settled = batches?.settle(request, used, []) ?? settle(database.of(tenant), request, used);
            assert.equal(await settled, 'settled');
            counted.tenant += actual;
            if (team) counted.team += actual;
            if (persona) counted.persona += actual;
            if (sessionId) counted.session += actual;
          }),
          most(),
        ]);
        await most();
        for (const scope of ['tenant', 'team', 'persona', 'session'] as const) {
          assert.ok(counted[scope] <= limits[scope], `${scope} has used ${counted[scope]} of ${limits[scope]}`);
        }
        const { rows } = await sql<{ scope: keyof typeof counted; used: string }>`
          select scope, used_tokens as used from budget_use where tenant = ${tenant}`.execute(database.of(tenant));
        for (const { scope, used } of rows)
          assert.equal(Number(used), counted[scope], `${scope} counts what was settled`);
      },
    ),
    { numRuns: 25, endOnFailure: true },
  );
  await sleep(1100);
  await returnExpired(owner.platform);
  const { rows } = await sql<{ held: string }>`select coalesce(sum(held_tokens), 0) as held from budget_use u
    where not exists (select 1 from budget_reservation r where r.tenant = u.tenant and r.state = 'held')`.execute(
    owner.platform,
  );
  assert.equal(Number(rows[0]?.held), 0, 'nothing is held by nobody');
});
