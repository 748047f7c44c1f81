import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import type { ClickHouseClient } from '@clickhouse/client';
import { fetchTrusting } from '@somagent/kit';
import { pythonOfFront, startClickHouse, type TestClickHouse } from './testing.ts';
import { clientOf, codeOf, rows } from './testing-clients.ts';

let server: TestClickHouse;
let analytics: ClickHouseClient;
let reader: ClickHouseClient;

before(async () => {
  server = await startClickHouse();
  [analytics, reader] = await Promise.all([clientOf(server, server.analytics), clientOf(server, server.reader)]);
  await analytics.command({ query: 'CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a' });
  await analytics.insert({ table: 't', values: [{ a: 1, b: 'one' }], format: 'JSONEachRow' });
});
after(async () => {
  await Promise.all([analytics?.close(), reader?.close()]);
  await server?.stop();
});

const run = (client: ClickHouseClient, query: string) => codeOf(() => client.command({ query }));
const get = (path: string, headers: Record<string, string>) =>
  fetchTrusting(server.caFile)(`${server.url}${path}`, { headers });

test('a wrong password, an unknown user, no user and credentials in a URL are refused with 516', async () => {
  const strangers = [
    { username: 'reader', password: server.analytics.password },
    { username: 'default', password: '' },
    { username: 'nobody', password: server.reader.password },
  ];
  for (const stranger of strangers) {
    const client = await clientOf(server, stranger);
    assert.equal(await run(client, 'SELECT 1'), 516, stranger.username);
    await client.close();
  }
  const bare = await get('/?query=SELECT+1', {});
  assert.deepEqual([bare.status, bare.headers.get('x-clickhouse-exception-code')], [403, '516']);
  const inUrl = await get(`/?query=SELECT+1&user=reader&password=${server.reader.password}`, {});
  assert.equal(inUrl.headers.get('x-clickhouse-exception-code'), '516');
  const headers = { 'x-clickhouse-user': 'reader', 'x-clickhouse-key': server.reader.password };
  assert.equal(await (await get('/?query=SELECT+1', headers)).text(), '1\n');
});

test('the reader reads, and changes nothing', async () => {
  assert.deepEqual(await rows(reader, 'SELECT b FROM t'), [{ b: 'one' }]);
  const changes = [
    "INSERT INTO t (a, b) VALUES (2, 'two')",
    'INSERT INTO t SELECT 2, toString(2)',
    'CREATE TABLE u (a UInt64) ENGINE = Memory',
    'ALTER TABLE t DELETE WHERE 1',
    'TRUNCATE TABLE t',
    'DROP TABLE t',
    'OPTIMIZE TABLE t FINAL',
    'CREATE VIEW v AS SELECT 1',
    'SET ROLE analytics',
    'SET readonly = 0',
    'GRANT ALL ON *.* TO default',
  ];
  for (const change of changes) assert.equal(await run(reader, change), 497, change);
  const insert = reader.insert({ table: 't', values: [{ a: 2, b: 'two' }], format: 'JSONEachRow' });
  assert.equal(await codeOf(() => insert), 497);
  assert.deepEqual(await rows(analytics, 'SELECT count() AS n FROM t'), [{ n: 1 }]);
});

test('GET changes nothing, whoever asks', async () => {
  const headers = { 'x-clickhouse-user': 'analytics', 'x-clickhouse-key': server.analytics.password };
  const answer = await get(`/?query=${encodeURIComponent('TRUNCATE TABLE t')}`, headers);
  assert.equal(answer.headers.get('x-clickhouse-exception-code'), '164');
  assert.deepEqual(await rows(analytics, 'SELECT count() AS n FROM t'), [{ n: 1 }]);
});

test('the reader may choose some settings, by the URL only', async () => {
  const ask = (name: string, value: string) =>
    codeOf(() => reader.query({ query: 'SELECT 1', clickhouse_settings: { [name]: value } }));
  assert.equal(await ask('max_execution_time', '5'), 0);
  assert.equal(await ask('insert_deduplicate', '0'), 164);
  assert.equal(await ask('readonly', '0'), 164);
  assert.equal(await run(reader, 'SELECT 1 SETTINGS max_memory_usage = 0'), 164);
});

/** Neither user may read a file or an address, or see other people's statements. */
const outside: readonly string[] = [
  "SELECT file('/etc/passwd')",
  "SELECT * FROM file('/etc/passwd', 'LineAsString')",
  'SELECT * FROM default.`/etc/passwd`',
  "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
  "SELECT * FROM s3('http://127.0.0.1:1/bucket/a.csv', 'k', 's', 'CSV', 'a String')",
  "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
  "SELECT * FROM executable('id', 'TSV', 'x String')",
  "SELECT * FROM python('sys')",
  "SELECT * FROM merge('system', 'processes')",
  "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
  `SELECT * FROM format(JSONEachRow, 'a Int8, b String DEFAULT file(''/etc/passwd'')', '{"a":1}')`,
  `SELECT * FROM format(JSONEachRow, concat('b String DEFAULT fi', 'le(''/etc/passwd'')'), '{}')`,
  'SELECT * FROM system.users',
  'SELECT query FROM system.processes',
  'SELECT 1 IN (SELECT query FROM system.processes)',
  'SELECT 1 IN system.processes',
  'WITH x AS (SELECT * FROM system.query_log) SELECT * FROM x',
  "SELECT 1 INTO OUTFILE '/tmp/out.csv'",
  'SYSTEM FLUSH LOGS',
  'KILL QUERY WHERE 1',
  'USE system',
];

test('no user reads files, addresses or statements of others', async () => {
  for (const client of [analytics, reader]) {
    for (const query of outside) assert.equal(await run(client, query), 497, query);
  }
  assert.equal(await run(analytics, 'SELECT count() FROM system.tables'), 0);
  assert.equal(await run(analytics, 'SELECT sum(number) FROM numbers(10)'), 0);
});

test('the owner of the database owns nothing else', async () => {
  const foreign = [
    'CREATE DATABASE other',
    'CREATE TABLE default.t (a UInt64) ENGINE = Memory',
    "CREATE TABLE f (l String) ENGINE = File('LineAsString', '/etc/passwd')",
    "CREATE TABLE m (q String) ENGINE = Merge('system', 'processes')",
    "CREATE TABLE f (a Int8, l String DEFAULT file('/etc/passwd')) ENGINE = Memory",
    "CREATE VIEW v AS SELECT file('/etc/passwd')",
    'CREATE VIEW v SQL SECURITY NONE AS SELECT * FROM t',
    "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(path '/etc/passwd' format 'CSV')) LAYOUT(FLAT()) LIFETIME(0)",
    'CREATE USER u',
    'CREATE FUNCTION f AS (x) -> x',
    'DROP DATABASE analytics',
    "INSERT INTO FUNCTION file('/tmp/x.csv') SELECT 1",
    'BACKUP DATABASE analytics TO Null',
  ];
  for (const query of foreign) assert.equal(await run(analytics, query), 497, query);
});

test('rows of VALUES are values: an expression is not computed', async () => {
  for (const value of ["file('/etc/passwd')", "concat('a', file('/etc/hostname'))", "upper('b')"]) {
    assert.notEqual(await run(analytics, `INSERT INTO t (a, b) VALUES (7, ${value})`), 0, value);
  }
  assert.equal(
    await run(
      analytics,
      "INSERT INTO t (a, b) SETTINGS input_format_values_interpret_expressions = 1 VALUES (7, file('/x'))",
    ),
    115,
  );
  assert.deepEqual(await rows(analytics, 'SELECT count() AS n FROM t WHERE a = 7'), [{ n: 0 }]);
});

test('one statement at a time, in the one database', async () => {
  assert.equal(await run(analytics, 'SELECT 1; DROP TABLE t'), 62);
  const elsewhere = await clientOf(server, server.analytics, { database: 'system' });
  assert.equal(await run(elsewhere, 'SELECT 1'), 81);
  await elsewhere.close();
});

/** The engine alone, without the front's judgement. */
const program = `
import sys, threading
from pathlib import Path
from clickhouse_front import engine, landlock
confined, folder = sys.argv[1] == 'confined', Path(sys.argv[2])
def work():
    if confined:
        landlock.restrict_thread(engine._system_paths(), [folder, Path('/dev/null'), Path('/dev/shm')])
    session = engine._library().connect(f'{folder}/engine')
    for sql in ("SELECT file('/etc/passwd')", "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString') SETTINGS http_max_tries = 1"):
        try:
            print(session.query(sql).bytes().decode()[:40])
        except RuntimeError as error:
            print(error)
thread = threading.Thread(target=work)
thread.start(); thread.join()
`;

test('the kernel keeps the engine from files and from TCP, even where its rights would not', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'confined-'));
  const ask = async (mode: string) => {
    const args = ['-c', program, mode, folder];
    const env = { PYTHONPATH: import.meta.dirname, PYTHONDONTWRITEBYTECODE: '1' };
    return (await promisify(execFile)(await pythonOfFront(), args, { env })).stdout;
  };
  const confined = await ask('confined');
  assert.match(confined, /Permission denied|Code: 76|CANNOT_OPEN_FILE/);
  assert.doesNotMatch(confined, /root:x:/);
  assert.match(confined, /Permission denied|NETWORK_ERROR|POCO_EXCEPTION/);
  // The same question without confinement: there is something to be kept from.
  assert.match(await ask('free'), /root:x:/);
  await rm(folder, { recursive: true, force: true });
});
