import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { retentionDays } from './migrations.ts';
import { sweep } from './retention.ts';
import { database } from './warehouse.ts';

const dayMs = 86_400_000;
const now = new Date();
let store: TestWarehouse;
before(async () => {
  store = await startWarehouse();
  // What the sweep leaves must be its own choice, not that of a merge.
  for (const table of ['usage', 'cut']) {
    if (table === 'usage') await store.warehouse.run(`alter table ${database}.${table} remove ttl`);
  }
});
after(() => store?.stop());

const moment = (days: number) => new Date(now.getTime() - days * dayMs).toISOString().slice(0, 23).replace('T', ' ');

const usage = (days: number, offset: number) => ({
  ...{ partition: 0, offset, event_id: randomUUID(), tenant: 'acme', time: moment(days), type: 'tokens.used' },
  ...{ version: 2, actor_kind: 'user', actor: 'mary', request_id: '', subject: 'mary' },
  ...{ prompt_tokens: 1, completion_tokens: 1, cost_micros: 0, model_ms: 1 },
});

test('after a sweep there is no row beyond the retention, and every other one is still there', async () => {
  const ages = Array.from({ length: 45 }, (_, days) => days);
  await store.warehouse.insert(
    'usage',
    ages.map((days) => usage(days, days)),
    'usage.tokens/0/0-44',
  );
  const older = `select count() as rows from ${database}.usage where time < now64(3) - toIntervalDay({days:UInt32})`;
  const before = await store.warehouse.rows<{ rows: number }>(older, { days: retentionDays + 1 });
  assert.ok((before[0]?.rows ?? 0) > 0, 'there is something to drop');
  const dropped = await sweep(store.warehouse, now);
  assert.deepEqual(await store.warehouse.rows(older, { days: retentionDays + 1 }), [{ rows: 0 }]);
  const kept = await store.warehouse.rows<{ offset: number }>(`select offset from ${database}.usage order by offset`);
  assert.deepEqual(
    kept.map(({ offset }) => offset),
    ages.slice(0, retentionDays + 1),
  );
  assert.equal(dropped.length, ages.length - retentionDays - 1);
  assert.deepEqual(await sweep(store.warehouse, now), [], 'a second sweep finds nothing');
});

test('of the journal, the days of the newest cuts stay however old they are', async () => {
  const cut = (partition: number, first: number, days: number) => ({
    ...{ topic: 'usage.tokens', partition, first, last: first + 9, aside_offsets: [], aside_reasons: [], writer: 'w' },
    at: moment(days),
  });
  const cuts = [cut(0, 0, 50), cut(0, 10, 40), cut(1, 0, 50), cut(1, 10, 1)];
  for (const [index, row] of cuts.entries()) await store.warehouse.insert('cut', [row], `cut/${index}`);
  await sweep(store.warehouse, now);
  const left = await store.warehouse.rows<{ partition: number; first: number }>(
    `select partition, first from ${database}.cut order by partition, first`,
  );
  assert.deepEqual(
    left.map(({ partition, first }) => `${partition}/${first}`),
    ['0/10', '1/10'],
  );
});
