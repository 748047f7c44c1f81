import assert from 'node:assert/strict';
import { request } from 'node:https';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import type { ClickHouseClient } from '@clickhouse/client';
import { fetchTrusting } from '@somagent/kit';
import { authorityOf, startClickHouse, type TestClickHouse } from './testing.ts';
import { clientOf, codeOf, rows } from './testing-clients.ts';

let server: TestClickHouse;
let client: ClickHouseClient;

before(async () => {
  server = await startClickHouse();
  client = await clientOf(server, server.analytics);
});
after(async () => {
  await client?.close();
  await server?.stop();
});

const run = (query: string, settings: Record<string, string | number> = {}) =>
  client.command({ query, clickhouse_settings: settings });
const count = async (table: string) =>
  (await rows<{ n: number }>(client, 'SELECT count() AS n FROM {table:Identifier}', { table }))[0]?.n;
const headers = () => ({ 'x-clickhouse-user': 'analytics', 'x-clickhouse-key': server.analytics.password });

test('rows are taken in every format of the list, and columns by name', async () => {
  await run('CREATE TABLE f (a UInt64, b String) ENGINE = MergeTree ORDER BY a');
  await client.insert({ table: 'f', values: [{ a: 1, b: 'x' }], format: 'JSONEachRow' });
  await client.insert({ table: 'f', values: [[2, 'y']], format: 'JSONCompactEachRow' });
  await client.insert({ table: 'f', values: Readable.from(['3,"a\n', 'b"\n'], { objectMode: false }), format: 'CSV' });
  await client.insert({ table: 'f', values: [{ a: 4 }], format: 'JSONEachRow', columns: ['a'] });
  await client.insert({ table: 'f', values: [{ a: 5 }], format: 'JSONEachRow', columns: { except: ['b'] } });
  await run("INSERT INTO analytics.`f` (a, b) VALUES (6, 'it''s'), (7, '')");
  const binary = Buffer.from([8, 0, 0, 0, 0, 0, 0, 0, 2, 0x68, 0x69]);
  const answer = await fetchTrusting(server.caFile)(`${server.url}/?query=INSERT+INTO+f+FORMAT+RowBinary`, {
    method: 'POST',
    headers: headers(),
    body: binary,
  });
  assert.equal(answer.status, 200);
  assert.deepEqual(
    (await rows<{ b: string }>(client, 'SELECT b FROM f ORDER BY a')).map(({ b }) => b),
    ['x', 'y', 'a\nb', '', '', "it's", '', 'hi'],
  );
  assert.equal(await codeOf(() => run('INSERT INTO f FORMAT Parquet')), 73);
});

test('half a million rows, 110 MB, stream in', async () => {
  await run('CREATE TABLE big (a UInt64, b String) ENGINE = MergeTree ORDER BY a');
  const pad = 'x'.repeat(200);
  function* values() {
    for (let a = 0; a < 500_000; a += 1) yield { a, b: pad };
  }
  const { summary } = await client.insert({ table: 'big', values: Readable.from(values()), format: 'JSONEachRow' });
  assert.equal(summary?.written_rows, '500000');
  assert.equal(await count('big'), 500_000);
});

test('a row that does not fit refuses the insert, and the next one works', async () => {
  await run('CREATE TABLE p (a UInt64) ENGINE = MergeTree ORDER BY a');
  const bad = client.insert({ table: 'p', values: [{ a: 1 }, { a: 'two' }], format: 'JSONEachRow' });
  assert.equal(await codeOf(() => bad), 27);
  const strict = { input_format_skip_unknown_fields: 0 as const };
  const unknown = client.insert({ table: 'p', values: [{ b: 1 }], format: 'JSONEachRow', clickhouse_settings: strict });
  assert.equal(await codeOf(() => unknown), 117);
  assert.equal(await codeOf(() => client.insert({ table: 'nosuch', values: [{ a: 1 }], format: 'JSONEachRow' })), 60);
  assert.equal(await count('p'), 0);
  await client.insert({ table: 'p', values: [{ a: 1 }], format: 'JSONEachRow' });
  assert.equal(await count('p'), 1);
});

test('rows of a client that goes midway are not written', async () => {
  await run('CREATE TABLE g (a UInt64) ENGINE = MergeTree ORDER BY a');
  const ca = await authorityOf(server);
  await new Promise<void>((done) => {
    const url = `${server.url}/?query=INSERT+INTO+g+FORMAT+JSONEachRow`;
    const sent = request(url, { method: 'POST', ca, headers: { ...headers(), 'transfer-encoding': 'chunked' } });
    sent.on('error', () => undefined);
    sent.on('close', done);
    sent.write('{"a":1}\n'.repeat(20_000), () => setTimeout(() => sent.destroy(), 300));
  });
  await client.insert({ table: 'g', values: [{ a: 7 }], format: 'JSONEachRow' });
  assert.deepEqual(await rows(client, 'SELECT a FROM g'), [{ a: 7 }]);
});

test('an insert with a known token is not written again, nor counted by a view', async () => {
  await run('CREATE TABLE d (a UInt64) ENGINE = MergeTree ORDER BY a');
  await run('CREATE TABLE d_sum (a UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY a');
  await run('CREATE MATERIALIZED VIEW d_view TO d_sum AS SELECT a, count() AS n FROM d GROUP BY a');
  const insert = (token: string, a: number, view = 1) =>
    client.insert({
      table: 'd',
      values: [{ a }, { a }],
      format: 'JSONEachRow',
      clickhouse_settings: {
        insert_deduplication_token: token,
        deduplicate_blocks_in_dependent_materialized_views: view as 0 | 1,
      },
    });
  for (const _ of [1, 2, 3]) await insert('batch-1', 1);
  assert.equal(await count('d'), 2);
  assert.deepEqual(await rows(client, 'SELECT sum(n) AS n FROM d_sum'), [{ n: 2 }]);
  // Another token writes the same rows; the token decides, not the content.
  await insert('batch-2', 1);
  assert.equal(await count('d'), 4);
  await insert('batch-2', 5);
  assert.equal(await count('d'), 4);
});

test('the engine itself says that inserts are synced and that 10,000 tokens are kept', async () => {
  const query = `SELECT name, value FROM system.merge_tree_settings
    WHERE name IN ('fsync_after_insert', 'fsync_part_directory', 'non_replicated_deduplication_window') ORDER BY name`;
  assert.deepEqual(await rows(client, query), [
    { name: 'fsync_after_insert', value: '1' },
    { name: 'fsync_part_directory', value: '1' },
    { name: 'non_replicated_deduplication_window', value: '10000' },
  ]);
});

test('partitions are dropped, and rows past their TTL are deleted', async () => {
  await run(`CREATE TABLE ttl (day Date, a UInt64) ENGINE = MergeTree PARTITION BY day ORDER BY a
    TTL day + INTERVAL 30 DAY`);
  await run('SYSTEM STOP TTL MERGES ttl').catch((error: { code: string }) => assert.equal(error.code, '497'));
  await run(`INSERT INTO ttl SELECT today() - number, number FROM numbers(28)`);
  assert.equal(await count('ttl'), 28);
  const [first] = await rows<{ day: string }>(client, 'SELECT toString(today()) AS day');
  await client.command({ query: `ALTER TABLE ttl DROP PARTITION '${first?.day}'` });
  assert.equal(await count('ttl'), 27);
  await run('INSERT INTO ttl SELECT today() - 40, 100 + number FROM numbers(5)');
  await run('OPTIMIZE TABLE ttl FINAL');
  const old = await rows(client, 'SELECT count() AS n FROM ttl WHERE day < today() - 30');
  assert.deepEqual(old, [{ n: 0 }]);
  assert.equal(await count('ttl'), 27);
});

test('what analytics is written with: quantiles, windows, states, materialized views', async () => {
  await run('CREATE TABLE m (tenant String, at DateTime, ms UInt32) ENGINE = MergeTree ORDER BY (tenant, at)');
  await run(`CREATE MATERIALIZED VIEW m_hour ENGINE = AggregatingMergeTree ORDER BY (tenant, hour) AS
    SELECT tenant, toStartOfHour(at) AS hour, quantilesState(0.5, 0.95)(ms) AS q, countState() AS n FROM m GROUP BY ALL`);
  await run(
    "INSERT INTO m SELECT 't' || toString(number % 2), toDateTime('2026-01-01 00:00:00') + number, number FROM numbers(1000)",
  );
  const query = `SELECT tenant, countMerge(n) AS n, arrayMap(x -> round(x), quantilesMerge(0.5, 0.95)(q)) AS q
    FROM m_hour GROUP BY tenant ORDER BY tenant`;
  assert.deepEqual(await rows(client, query), [
    { tenant: 't0', n: 500, q: [499, 948] },
    { tenant: 't1', n: 500, q: [500, 949] },
  ]);
  const windowed = `SELECT ms, sum(ms) OVER (PARTITION BY tenant ORDER BY at ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s
    FROM m WHERE tenant = 't0' ORDER BY at LIMIT 3`;
  assert.deepEqual(await rows(client, windowed), [
    { ms: 0, s: 0 },
    { ms: 2, s: 2 },
    { ms: 4, s: 6 },
  ]);
});
