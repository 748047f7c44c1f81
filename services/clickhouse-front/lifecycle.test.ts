import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { pythonOfFront, startClickHouse } from './testing.ts';
import { clientOf, codeOf, rows } from './testing-clients.ts';

test('killed while it writes, it has every insert that was acknowledged, and each only once', async () => {
  const server = await startClickHouse();
  try {
    const table = 'CREATE TABLE t (batch UInt32, a UInt32) ENGINE = MergeTree ORDER BY (batch, a)';
    const first = await clientOf(server, server.analytics);
    await first.command({ query: table });
    await first.close();
    const acknowledged = new Set<number>();
    for (const round of [0, 1, 2]) {
      const client = await clientOf(server, server.analytics);
      const write = async (batch: number) => {
        const values = Array.from({ length: 500 }, (_, a) => ({ batch, a }));
        await client.insert({
          table: 't',
          values,
          format: 'JSONEachRow',
          clickhouse_settings: { insert_deduplication_token: `batch-${batch}` },
        });
        acknowledged.add(batch);
      };
      // The batches of the round before come again, as after a redelivery.
      const from = Math.max(0, round - 1) * 40;
      const writer = (async () => {
        for (let batch = from; batch < (round + 1) * 40; batch += 1) await write(batch);
      })().catch(() => undefined);
      await sleep(400);
      await server.kill();
      await writer;
      await client.close();
      await server.resume();
    }
    assert.ok(acknowledged.size > 0);
    const reader = await clientOf(server, server.reader);
    const found = await rows<{ batch: number; n: number }>(reader, 'SELECT batch, count() AS n FROM t GROUP BY batch');
    await reader.close();
    for (const { batch, n } of found) assert.equal(n, 500, `batch ${batch}`);
    const missing = [...acknowledged].filter((batch) => !found.some((each) => each.batch === batch));
    assert.deepEqual(missing, []);
  } finally {
    await server.stop();
  }
});

test('asked to end, it finishes the insert that runs, closes and says 0', async () => {
  const server = await startClickHouse();
  try {
    const client = await clientOf(server, server.analytics);
    await client.command({ query: 'CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a' });
    async function* slow() {
      for (let a = 0; a < 60; a += 1) {
        await sleep(50);
        yield { a };
      }
    }
    const insert = client.insert({ table: 't', values: Readable.from(slow()), format: 'JSONEachRow' });
    await sleep(500);
    const [code] = await Promise.all([server.end(), insert]);
    assert.equal(code, 0);
    await client.close();
    await server.resume();
    const again = await clientOf(server, server.analytics);
    assert.deepEqual(await rows(again, 'SELECT count() AS n FROM t'), [{ n: 60 }]);
    assert.equal(await codeOf(() => again.command({ query: 'DROP TABLE t' })), 0);
    await again.close();
  } finally {
    await server.stop();
  }
});

const start = async (env: Record<string, string>) => {
  const args = ['-m', 'clickhouse_front.main'];
  const all = { PYTHONPATH: import.meta.dirname, PYTHONDONTWRITEBYTECODE: '1', ...env };
  return promisify(execFile)(await pythonOfFront(), args, { env: all }).catch(
    (error: { code: number; stderr: string }) => error,
  );
};

test('a wrong configuration ends it with 2, and says what to set', async () => {
  const empty = { CLICKHOUSE_TLS_DIR: '/tmp', CLICKHOUSE_USERS_DIR: '/nonexistent', CLICKHOUSE_DATA_DIR: '/tmp' };
  const wrong = await start(empty);
  assert.equal('code' in wrong && wrong.code, 2);
  assert.match(wrong.stderr, /CLICKHOUSE_USERS_DIR=\/nonexistent is no folder; set it to/);
  const number = await start({ ...empty, CLICKHOUSE_USERS_DIR: '/tmp', CLICKHOUSE_MAX_QUERIES: 'all' });
  assert.match(number.stderr, /CLICKHOUSE_MAX_QUERIES=all is not usable; set it to a whole number from 2 to 200/);
  const users = await start({ ...empty, CLICKHOUSE_USERS_DIR: '/tmp' });
  assert.match(users.stderr, /\/tmp\/analytics\/username can't be read/);
});
