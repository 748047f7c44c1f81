/**
 * What a budget costs: `node tests/bench/budget.ts [seconds]`. Reservations and settlements on a Postgres of its own
 * with fsync, one after the other and many at once, all of one tenant with four budgets that apply to each: a commit
 * each, and in batches as the gateway makes them.
 */
import { randomUUID } from 'node:crypto';
import { startPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { BudgetBatches, budgetMigration, putBudget, reserve, settle } from '@somagent/budget';
import { outboxMigration, TenantDatabase } from '@somagent/kit';
import pg from 'pg';

const seconds = Number(process.argv[2] ?? 5);
const tenant = 'acme';
const origin = { actor: { kind: 'system', id: 'bench', client: null }, requestId: null } as const;

const quantile = (values: readonly number[], share: number): string =>
  (values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0).toFixed(2);

/** @returns requests per second */
async function measure(
  database: TenantDatabase<unknown>,
  clients: number,
  sessions: boolean,
  batches?: BudgetBatches,
): Promise<number> {
  const rows = database.of(tenant);
  const times = { reserve: [] as number[], settle: [] as number[] };
  const until = performance.now() + seconds * 1000;
  const open: Promise<unknown>[] = [];
  const client = async () => {
    while (performance.now() < until) {
      const requestId = randomUUID();
      const at = performance.now();
      const ids = { team: 'blue', persona: 'agent', sessionId: sessions ? randomUUID() : null };
      const request = { tenant, ...ids, requestId, tokens: 100, costMicros: 100 };
      const answer = await (batches?.reserve(request) ?? reserve(rows, request));
      if (!answer.granted) throw new Error(answer.message);
      const reserved = performance.now();
      const used = { tokens: 50, costMicros: 20 };
      const settled = batches?.settle(request, used, []) ?? settle(rows, request, used);
      // As in the gateway: nobody waits for it.
      if (batches === undefined) await settled;
      else open.push(settled);
      times.reserve.push(reserved - at);
      times.settle.push(performance.now() - reserved);
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: clients }, client));
  await Promise.all(open);
  const perSecond = (times.reserve.length / (performance.now() - began)) * 1000;
  const shown = (values: number[]) => `${quantile(values, 0.5)} / ${quantile(values, 0.99)} ms`;
  console.log(
    `${String(clients).padStart(2)} at once${batches ? ', batches' : ''}: ${perSecond.toFixed(0)} requests/s; p50 / p99: reserve ${shown(times.reserve)}, settle ${shown(times.settle)}`,
  );
  return perSecond;
}

const postgres = await startPostgres({ fsync: 'on', log_statement: 'none' });
const admin = await postgres.connect('postgres');
await admin.query(`create role sessions login password 'of this bench'`);
await admin.query('create database sessions owner sessions');
await admin.end();
const { host, port, ca } = postgres.server;
const connection = {
  host,
  port,
  user: 'sessions',
  password: 'of this bench',
  database: 'sessions',
  ssl: { ca: ca ?? '' },
};
const database = new TenantDatabase<unknown>(new pg.Pool({ ...connection, max: 16 }).on('error', () => undefined));
try {
  await outboxMigration.up(database.untenanted);
  await budgetMigration.up(database.untenanted);
  await measure(database, 1, false);
  const most = { tokens: 1e12, costMicros: 1e12 };
  for (const [scope, id] of [
    ['tenant', tenant],
    ['team', 'blue'],
    ['persona', '*'],
    ['session', '*'],
  ] as const) {
    await putBudget(database.of(tenant), { tenant, scope, id, period: 'total', ...most }, origin);
  }
  console.log('with four budgets:');
  for (const clients of [1, 4, 16]) await measure(database, clients, true);
  console.log('with three budgets, no session:');
  for (const clients of [1, 4, 16]) {
    const alone = await measure(database, clients, false);
    const together = await measure(database, clients, false, new BudgetBatches({ database }));
    console.log(`   ${(together / alone).toFixed(2)} times the requests/s`);
  }
} finally {
  await database.destroy();
  await postgres.stop();
}
