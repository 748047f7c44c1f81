import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startWarehouse } from '../testing/warehouse.ts';
import { database } from '../warehouse/warehouse.ts';
import { forecastAll } from './forecaster.ts';
import { preparedPython } from './main.ts';
import { measure } from './measure.ts';
import { askModel } from './model.ts';
import { plant, randomNumbers, readProfile, trace } from './profile.ts';

const program = { python: preparedPython(), program: fileURLToPath(new URL('model.py', import.meta.url)) };
const profile = await readProfile(new URL('../profiles/weekly.json', import.meta.url));
const [first] = profile.tenants;

// All tenants from five origins: node services/analytics/forecast/main.ts
const few = { ...profile, tenants: profile.tenants.slice(0, 2) };

test('forecasts keep the mark, planted anomalies are found, and not much else is named', async () => {
  const measured = await measure(program, few, 7, 2);
  assert.equal(measured.length, 2);
  for (const { tenant, accuracy, precision, recall } of measured) {
    assert.ok(accuracy >= 0.95, `${tenant}: accuracy ${accuracy}`);
    assert.ok(precision >= 0.9, `${tenant}: precision ${precision}`);
    assert.ok(recall >= 0.9, `${tenant}: recall ${recall}`);
  }
});

test('what has no season is not forecast well: the back-test can convict', async () => {
  const random = randomNumbers(3);
  const noise = Array.from({ length: 28 * 24 }, () => Math.round(20_000 * random()));
  const { noise: answer } = await askModel(program, { horizon: 48, folds: 2, threshold: 4.5, series: { noise } });
  assert.ok(
    answer && 'accuracy' in answer && answer.accuracy !== null && answer.accuracy < 0.8,
    JSON.stringify(answer),
  );
});

test('a series without anomalies has none, and one that is too short says so', async () => {
  assert.ok(first);
  const series = { calm: trace({ ...first, noise: 0.02 }, 28, randomNumbers(5)), young: [1, 2, 3] };
  const answers = await askModel(program, { horizon: 48, folds: 0, threshold: 4.5, series });
  assert.ok(answers.calm && 'anomalies' in answers.calm);
  assert.deepEqual(answers.calm.anomalies, []);
  assert.deepEqual(answers.young, { problem: '3 hours are known, 48 are needed' });
});

test('traces come again with their seed, and what is planted is what differs', () => {
  assert.ok(first);
  const values = trace(first, 28, randomNumbers(1));
  assert.deepEqual(trace(first, 28, randomNumbers(1)), values);
  const planted = plant(values, profile.anomalies, randomNumbers(2));
  const different = values.flatMap((value, hour) => (value === planted.values[hour] ? [] : [hour]));
  assert.deepEqual(different, [...planted.hours]);
});

test('what tenants used is forecast from ClickHouse into ClickHouse; a repetition replaces it', async () => {
  assert.ok(first);
  const store = await startWarehouse();
  try {
    const now = new Date(Math.floor(Date.now() / 3_600_000) * 3_600_000 + 60_000);
    const values = trace(first, 28, randomNumbers(4));
    const begin = now.getTime() - 60_000 - values.length * 3_600_000;
    const odd = values.length - 30;
    const rows = values.map((tokens, hour) => ({
      ...{ partition: 0, offset: hour, event_id: randomUUID(), tenant: 'acme', type: 'tokens.used', version: 2 },
      time: new Date(begin + hour * 3_600_000 + 1000).toISOString().slice(0, 23).replace('T', ' '),
      ...{ prompt_tokens: hour === odd ? 5 * tokens : tokens, completion_tokens: 0 },
    }));
    await store.warehouse.insert('usage', rows, 'usage.tokens/0/0-671');
    for (let run = 0; run < 2; run += 1) {
      const result = await forecastAll(store.warehouse, program, now);
      assert.deepEqual([result.tenants, result.hours, result.anomalies, result.problems], [1, 48, 1, {}]);
    }
    const count = async (table: string) =>
      (await store.warehouse.rows<{ rows: number }>(`select count() as rows from ${database}.${table} final`))[0]?.rows;
    assert.deepEqual([await count('forecast'), await count('anomaly')], [48, 1]);
    const [found] = await store.warehouse.rows<{ tokens: number }>(`select tokens from ${database}.anomaly final`);
    assert.equal(found?.tokens, 5 * (values[odd] ?? 0));
  } finally {
    await store.stop();
  }
});
