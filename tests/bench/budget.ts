/**
 * What a budget costs: `node tests/bench/budget.ts [seconds]`. Reservations and settlements on a Postgres of its own
 * with fsync, one after the other and many at once, all of one tenant with four budgets that apply to each.
 */
import { randomUUID } from 'node:crypto';
import { startPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { budgetMigration, putBudget, reserve, settle } from '@somagent/budget';
import { outboxMigration, TenantDatabase } from '@somagent/kit';
import pg from 'pg';

const seconds = Number(process.argv[2] ?? 5);
const tenant = 'acme';
const origin = { actor: { kind: 'system', id: 'bench', client: null }, requestId: null } as const;

const quantile = (values: readonly number[], share: number): string =>
  (values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0).toFixed(2);

async function measure(database: TenantDatabase<unknown>, clients: number, sessions: boolean): Promise<void> {
  const rows = database.of(tenant);
  const times = { reserve: [] as number[], settle: [] as number[] };
  const until = performance.now() + seconds * 1000;
  const client = async () => {
    while (performance.now() < until) {
      const requestId = randomUUID();
      const at = performance.now();
      const ids = { team: 'blue', persona: 'agent', sessionId: sessions ? randomUUID() : null };
      const answer = await reserve(rows, { tenant, ...ids, requestId, tokens: 100, costMicros: 100 });
      if (!answer.granted) throw new Error(answer.message);
      const reserved = performance.now();
      await settle(rows, { tenant, requestId }, { tokens: 50, costMicros: 20 });
      times.reserve.push(reserved - at);
      times.settle.push(performance.now() - reserved);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const shown = (values: number[]) => `${quantile(values, 0.5)} / ${quantile(values, 0.99)} ms`;
  const rate = (times.reserve.length / seconds).toFixed(0);
  console.log(
    `${String(clients).padStart(2)} at once: ${rate} requests/s; p50 / p99: reserve ${shown(times.reserve)}, settle ${shown(times.settle)}`,
  );
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
} finally {
  await database.destroy();
  await postgres.stop();
}
