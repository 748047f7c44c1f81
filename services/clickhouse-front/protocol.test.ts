import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import { fetchTrusting } from '@somagent/kit';
import { startClickHouse, type TestClickHouse } from './testing.ts';
import { clientOf, codeOf, rows } from './testing-clients.ts';

let server: TestClickHouse;
let analytics: ClickHouseClient;
let reader: ClickHouseClient;

before(async () => {
  server = await startClickHouse({ env: { CLICKHOUSE_MAX_QUERIES: '4', CLICKHOUSE_MAX_MEMORY_MIB: '512' } });
  [analytics, reader] = await Promise.all([clientOf(server, server.analytics), clientOf(server, server.reader)]);
});
after(async () => {
  await Promise.all([analytics?.close(), reader?.close()]);
  await server?.stop();
});

const failure = (query: string, settings: Record<string, string | number> = {}) =>
  codeOf(async () => (await analytics.query({ query, clickhouse_settings: settings, format: 'JSONEachRow' })).text());
/** Never ends by itself within a test. */
const endless = 'SELECT sum(sipHash64(number)) FROM numbers(100000000000)';

async function raw(path: string, init: RequestInit = {}): Promise<Response> {
  const { username, password } = server.analytics;
  const headers = { ...init.headers, 'x-clickhouse-user': username, 'x-clickhouse-key': password };
  return fetchTrusting(server.caFile)(`${server.url}${path}`, { ...init, headers });
}

test('it says that it lives, without credentials', async () => {
  assert.deepEqual(await analytics.ping(), { success: true });
  assert.deepEqual(await reader.ping({ select: true }), { success: true });
  for (const path of ['/ping', '/replicas_status']) {
    const answer = await fetchTrusting(server.caFile)(`${server.url}${path}`);
    assert.deepEqual([answer.status, await answer.text()], [200, 'Ok.\n']);
  }
  assert.equal((await raw('/play')).status, 404);
});

test('an answer says its format, its query and what it took', async () => {
  const answer = await raw('/?default_format=CSV&query_id=q-1', {
    method: 'POST',
    body: 'SELECT number FROM numbers(3)',
  });
  assert.equal(await answer.text(), '0\n1\n2\n');
  assert.equal(answer.headers.get('x-clickhouse-format'), 'CSV');
  assert.equal(answer.headers.get('x-clickhouse-query-id'), 'q-1');
  assert.equal(answer.headers.get('content-type'), 'text/csv; charset=UTF-8; header=absent');
  const whole = await raw('/?wait_end_of_query=1&send_progress_in_http_headers=1', {
    method: 'POST',
    body: 'SELECT 1',
  });
  const summary = JSON.parse(whole.headers.get('x-clickhouse-summary') ?? '{}');
  assert.deepEqual([summary.result_rows, summary.result_bytes], ['1', '2']);
  assert.equal(JSON.parse(whole.headers.get('x-clickhouse-progress') ?? '{}').result_rows, '1');
  const own = await raw('/', {
    method: 'POST',
    body: 'SELECT 1 AS x FORMAT JSONEachRow',
    headers: { 'x-clickhouse-format': 'CSV' },
  });
  assert.equal(await own.text(), '{"x":1}\n');
});

test('parameters are values: the engine binds them', async () => {
  const query = 'SELECT {s:String} AS s, {n:UInt64} AS n, {a:Array(String)} AS a, {d:Nullable(Date)} AS d';
  const evil = "x' OR 1=1 --\\\n\t'; DROP TABLE t";
  const [row] = await rows(analytics, query, { s: evil, n: 7, a: ["it's", 'b'], d: null });
  assert.deepEqual(row, { s: evil, n: 7, a: ["it's", 'b'], d: null });
  const named = await rows(analytics, 'SELECT count() AS n FROM {d:Identifier}.{t:Identifier}', {
    d: 'system',
    t: 'one',
  });
  assert.deepEqual(named, [{ n: 1 }]);
  const missing = await codeOf(() => rows(analytics, 'SELECT {x:UInt8}'));
  assert.equal(missing, 456);
  const wrong = await codeOf(() => rows(analytics, 'SELECT {x:UInt8}', { x: 'seven' }));
  assert.equal(wrong, 457);
  const hidden = await codeOf(() =>
    rows(analytics, 'SELECT * FROM {d:Identifier}.{t:Identifier}', { d: 'system', t: 'processes' }),
  );
  assert.equal(hidden, 497);
});

test('many parameters come as a form', async () => {
  const ids = Array.from({ length: 2000 }, (_, index) => `id-${index}`);
  const query = 'SELECT length({ids:Array(String)}) AS n';
  const result = await analytics.query({
    query,
    query_params: { ids },
    use_multipart_params: true,
    format: 'JSONEachRow',
  });
  assert.deepEqual(await result.json(), [{ n: 2000 }]);
});

test('settings: those that are known, within their bounds', async () => {
  const ask = async (settings: Record<string, string | number>) => {
    const query = "SELECT getSetting('max_threads') AS t, getSetting('max_execution_time') AS s";
    return (await analytics.query({ query, clickhouse_settings: settings, format: 'JSONEachRow' })).json();
  };
  assert.deepEqual(await ask({ max_threads: 1, max_execution_time: 7 }), [{ t: 1, s: 7 }]);
  // They are of one request, and 0 is no way around the limit.
  assert.deepEqual(await ask({ max_threads: 0, max_execution_time: 0 }), [{ t: 2, s: 60 }]);
  assert.equal(await failure('SELECT 1', { no_such_setting: '1' }), 115);
  assert.equal(await failure('SELECT 1', { max_threads: 'many' }), 36);
  assert.equal(await failure('SELECT 1', { async_insert: 1 }), 164);
  assert.equal(await codeOf(() => analytics.query({ query: 'SELECT 1', session_id: 's' })), 48);
});

test('errors have their codes and statuses', async () => {
  const known: readonly (readonly [query: string, code: number, status: number])[] = [
    ['SELECT * FROM nosuch', 60, 404],
    ['SELEC 1', 62, 400],
    ['SELECT nosuch', 47, 404],
    ['SELECT nosuch(1)', 46, 404],
    ['SELECT 1 FORMAT Nosuch', 73, 404],
    ["SELECT toUInt8('x')", 6, 400],
    ['SET max_threads = 1', 497, 403],
    ["SELECT throwIf(1, 'planted')", 395, 500],
  ];
  for (const [query, code, status] of known) {
    const answer = await raw('/', { method: 'POST', body: query });
    assert.deepEqual([answer.status, answer.headers.get('x-clickhouse-exception-code')], [status, String(code)], query);
    assert.match(await answer.text(), new RegExp(`^Code: ${code}\\. DB::Exception: .* \\(version \\d`, 's'));
  }
  const large = await raw('/', { method: 'POST', body: `SELECT '${'x'.repeat(1 << 20)}'` });
  assert.deepEqual([large.status, large.headers.get('x-clickhouse-exception-code')], [413, '161']);
});

test('a million rows come piece by piece; headers come once', async () => {
  const query = 'SELECT number FROM numbers(1000000)';
  let [count, sum] = [0, 0];
  const result = await analytics.query({ query, format: 'JSONCompactEachRow' });
  for await (const piece of result.stream<[number]>()) {
    count += piece.length;
    for (const row of piece) sum += row.json<[number]>()[0];
  }
  assert.deepEqual([count, sum], [1_000_000, 499_999_500_000]);
  const named = await raw('/?default_format=CSVWithNames&max_block_size=2', {
    method: 'POST',
    body: 'SELECT number AS n FROM numbers(5)',
  });
  assert.equal(await named.text(), '"n"\n0\n1\n2\n3\n4\n');
  const empty = await raw('/?default_format=CSVWithNames', { method: 'POST', body: 'SELECT 1 AS n WHERE 0' });
  assert.equal(await empty.text(), '"n"\n');
});

test('an error midway ends the stream as an error; with wait_end_of_query it is the answer', async () => {
  const query = 'SELECT number, throwIf(number = 300000) FROM numbers(1000000)';
  let seen = 0;
  const code = await codeOf(async () => {
    const result = await analytics.query({
      query,
      format: 'JSONCompactEachRow',
      clickhouse_settings: { max_block_size: '1000' },
    });
    for await (const piece of result.stream()) seen += piece.length;
  });
  assert.equal(code, 395);
  assert.ok(seen > 0 && seen < 1_000_000, `${seen} rows before the error`);
  const held = await raw('/?wait_end_of_query=1', { method: 'POST', body: query });
  assert.deepEqual([held.status, held.headers.get('x-clickhouse-exception-code')], [500, '395']);
});

test('answers and inserts are compressed on demand', async () => {
  const client = await clientOf(server, server.analytics, { compression: { request: true, response: true } });
  await client.command({ query: 'CREATE TABLE z (a UInt64) ENGINE = MergeTree ORDER BY a' });
  await client.insert({ table: 'z', values: Array.from({ length: 5000 }, (_, a) => ({ a })), format: 'JSONEachRow' });
  assert.deepEqual(await rows(client, 'SELECT count() AS n, max(a) AS m FROM z'), [{ n: 5000, m: 4999 }]);
  await client.close();
  const answer = await raw('/?enable_http_compression=1', {
    method: 'POST',
    body: 'SELECT 1',
    headers: { 'accept-encoding': 'gzip' },
  });
  assert.equal(answer.headers.get('content-encoding'), 'gzip');
  assert.equal(await answer.text(), '1\n');
  const plain = await raw('/', { method: 'POST', body: 'SELECT 1', headers: { 'accept-encoding': 'gzip' } });
  assert.equal(plain.headers.get('content-encoding'), null);
  const broken = await raw('/?query=INSERT+INTO+z+FORMAT+CSV', {
    method: 'POST',
    body: 'no gzip',
    headers: { 'content-encoding': 'gzip' },
  });
  assert.equal(broken.headers.get('x-clickhouse-exception-code'), '271');
  const unknown = await raw('/', { method: 'POST', body: 'SELECT 1', headers: { 'content-encoding': 'br' } });
  assert.equal(unknown.headers.get('x-clickhouse-exception-code'), '89');
});

test('time and memory have limits', async () => {
  assert.equal(await failure(endless, { max_execution_time: 1 }), 159);
  assert.equal(await failure('SELECT groupArray(number) FROM numbers(200000000)'), 241);
  assert.equal(await failure('SELECT 1'), 0);
});

const running = async () =>
  Number(
    /^clickhouse_engine\{name="queries"\} (\S+)$/m.exec(await (await fetch(`${server.healthUrl}/metrics`)).text())?.[1],
  );

async function until(count: number): Promise<number> {
  const deadline = Date.now() + 10_000;
  let found = await running();
  while (found !== count && Date.now() < deadline) {
    await sleep(50);
    found = await running();
  }
  return found;
}

test('a query ends in the engine when its client goes', async () => {
  const abort = new AbortController();
  const asked = analytics.query({ query: endless, abort_signal: abort.signal }).catch(() => 'aborted');
  assert.equal(await until(1), 1);
  abort.abort();
  assert.equal(await asked, 'aborted');
  assert.equal(await until(0), 0);
});

test('more queries than the server takes at once are refused with 202, and pass later', async () => {
  const abort = new AbortController();
  const asked = Array.from({ length: 4 }, () =>
    reader.query({ query: endless, abort_signal: abort.signal }).catch(() => 0),
  );
  assert.equal(await until(4), 4);
  assert.equal(await failure('SELECT 1'), 202);
  abort.abort();
  await Promise.all(asked);
  assert.equal(await until(0), 0);
  assert.equal(await failure('SELECT 1'), 0);
});

test('metrics count by role, kind and code', async () => {
  const text = await (await fetch(`${server.healthUrl}/metrics`)).text();
  assert.match(text, /clickhouse_front_queries_total\{code="202",kind="none",role="analytics"\} 1\.0/);
  assert.match(text, /clickhouse_front_query_seconds_bucket\{kind="select",le="0\.05",role="reader"\}/);
  assert.match(text, /clickhouse_engine\{name="rows"\} 5000\.0/);
});
