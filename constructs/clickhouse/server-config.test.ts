import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { pythonOfFront } from '../../services/clickhouse-front/testing.ts';
import { TestRegion } from '../testing.ts';
import { ClickHouse } from './clickhouse.ts';

/** The same engine as the server's reads the configuration; its only session is one of a user that the test adds. */
const program = `
import sys
from clickhouse_front import engine
session = engine._library().connect(f'{sys.argv[1]}/data?config-file={sys.argv[1]}/config.xml')
for sql in sys.argv[2:]:
    print(session.query(sql, 'TSVRaw').bytes().decode())
`;

async function ask(...statements: string[]): Promise<string> {
  const region = new TestRegion();
  const image = 'clickhouse/clickhouse-server:26.8';
  new ClickHouse(region.chart('data'), 'clickhouse', { image, plan: region.plan, renderer: 'server' });
  const { data } = region.find('ConfigMap', 'clickhouse-server-config');
  const folder = await mkdtemp(join(tmpdir(), 'clickhouse-config-'));
  const everything = '<grants><query>GRANT ALL ON *.*</query></grants>';
  const session = `<default><no_password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>${everything}</default>`;
  // Only a server reads the setting of config.xml that allows these constraints.
  const users = data['users.xml'].replace(/<constraints>.*<\/constraints>/, '').replace('<users>', `<users>${session}`);
  await writeFile(join(folder, 'users.xml'), users);
  const config: string = data['config.xml']
    .replaceAll('/etc/clickhouse/', `${folder}/`)
    .replaceAll('/var/lib/clickhouse', `${folder}/data`)
    // A server makes this database when it starts; the engine alone expects it.
    .replace(/<default_database>.*<\/default_database>/, '')
    .replace('<console>1</console>', '<console>0</console>');
  await writeFile(join(folder, 'config.xml'), config);
  const hash = createHash('sha256').update('password').digest('hex');
  const env = {
    PYTHONPATH: join(import.meta.dirname, '../../services/clickhouse-front'),
    PYTHONDONTWRITEBYTECODE: '1',
    ANALYTICS_SHA256: hash,
    READER_SHA256: hash,
    POD_NAME: 'clickhouse-0',
    POD_HOST: 'clickhouse-0',
    INTERSERVER_TOKEN: 'token',
  };
  const args = ['-c', program, folder, ...statements];
  try {
    return (await promisify(execFile)(await pythonOfFront(), args, { env })).stdout;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

test('the engine reads the configuration: who may what, and what tables remember', async () => {
  const said = await ask(
    'SHOW GRANTS FOR reader',
    'SHOW CREATE USER reader',
    'SHOW GRANTS FOR analytics',
    "SELECT name || '=' || value FROM system.merge_tree_settings WHERE name LIKE '%replicated_deduplication_window' OR name = 'fsync_after_insert' ORDER BY name",
    "SELECT count() FROM system.users WHERE name NOT IN ('default', 'analytics', 'reader')",
  );
  const [reader = '', analytics = ''] = said.split('CREATE USER reader');
  assert.match(reader, /GRANT SHOW, SELECT ON analytics\.\* TO reader/);
  assert.doesNotMatch(reader, /INSERT|ALTER|CREATE|CLUSTER|system\.\*|system\.processes/);
  assert.match(analytics, /IDENTIFIED WITH sha256_password .*SETTINGS PROFILE `?reader/);
  assert.match(analytics, /GRANT .*INSERT.* ON analytics\.\* TO analytics/);
  assert.match(
    said,
    /fsync_after_insert=1\nnon_replicated_deduplication_window=10000\nreplicated_deduplication_window=10000\n/,
  );
  assert.match(said, /\n0\n\s*$/);
});

test('the reader sees rows of the named tenant only, by filters on the tables that the engine filters too', async () => {
  const said = await ask(
    // For other users the engine adds policies that show everything.
    "SELECT table || ': ' || select_filter FROM system.row_policies WHERE apply_to_list = ['reader'] ORDER BY table",
    "SELECT DISTINCT select_filter FROM system.row_policies WHERE apply_to_list = ['analytics']",
  );
  const { stdout } = await promisify(execFile)(
    await pythonOfFront(),
    [
      '-c',
      "from clickhouse_front import engine; print(*sorted(engine.TENANT_TABLES), engine._ROWS_OF_READER, sep='\\n')",
    ],
    { env: { PYTHONPATH: join(import.meta.dirname, '../../services/clickhouse-front'), PYTHONDONTWRITEBYTECODE: '1' } },
  );
  const lines = stdout.trim().split('\n');
  const rows = lines.pop();
  assert.ok(lines.length >= 7);
  const filters = said.split('\n').filter((line) => line !== '');
  assert.deepEqual(filters, [...lines.map((table) => `${table}: ${rows}`), '1']);
});
