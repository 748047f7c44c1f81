import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { database, Warehouse } from './warehouse.ts';

let store: TestWarehouse;
let reader: Warehouse;
let tables: readonly string[];
before(async () => {
  store = await startWarehouse();
  reader = new Warehouse(store.variables('reader'));
  const found = await store.warehouse.rows<{ table: string }>(
    `select table from system.columns where database = {database:String} and name = 'tenant' and table in
    (select name from system.tables where database = {database:String} and engine like '%MergeTree')`,
    { database },
  );
  tables = found.map(({ table }) => table);
  // Also rows that belong to nobody, as those of the platform.
  const now = new Date().toISOString().slice(0, 19).replace('T', ' ');
  const rows = (time: string) => ['acme', 'globex', ''].map((tenant) => ({ tenant, [time]: now }));
  const timeOf = (table: string) => (['forecast', 'anomaly'].includes(table) ? 'hour' : 'time');
  await Promise.all(tables.map((table) => store.warehouse.insert(table, rows(timeOf(table)))));
});
after(async () => {
  await reader?.close();
  await store?.stop();
});

/** Tenants that a statement without any condition shows. */
async function shown(as: Warehouse, table: string, tenant?: string): Promise<readonly string[]> {
  const rows = await as.rows<{ tenant: string }>(
    `select distinct tenant from ${database}.${table} order by tenant`,
    {},
    tenant,
  );
  return rows.map((row) => row.tenant);
}

test('who may only select sees of every table the rows of the named tenant, whatever the statement forgets', async () => {
  assert.ok(tables.length >= 7, tables.join());
  for (const table of tables) {
    assert.deepEqual(await shown(reader, table, 'acme'), ['acme'], table);
    assert.deepEqual(await shown(reader, table, 'globex'), ['globex'], table);
    assert.deepEqual(await shown(reader, table, 'nobody'), [], table);
    assert.deepEqual(await shown(reader, table), [], `${table} without a tenant`);
    assert.deepEqual(await shown(reader, table, '*'), ['', 'acme', 'globex'], table);
    assert.deepEqual(await shown(store.warehouse, table), ['', 'acme', 'globex'], `the owner of ${table}`);
  }
});

test('views, counts and joins show no more', async () => {
  for (const view of ['consumption', 'decision', 'session_latency']) {
    assert.deepEqual(await shown(reader, view, 'acme'), ['acme'], view);
    assert.deepEqual(await shown(reader, view), [], view);
  }
  const [{ rows } = { rows: -1 }] = await reader.rows<{ rows: number }>(
    `select count() as rows from ${database}.usage`,
    {},
    'acme',
  );
  assert.equal(rows, 1);
  const joined = `select v.tenant as tenant from ${database}.usage as u cross join ${database}.verdict as v`;
  assert.deepEqual(await reader.rows(joined, {}, 'acme'), [{ tenant: 'acme' }]);
});

test('a statement can not name another tenant by itself', async () => {
  const forged = `select tenant from ${database}.usage settings log_comment = '*'`;
  await assert.rejects(reader.rows(forged, {}, 'acme'), { code: '164' });
  // What one request named is not left to the next.
  await shown(reader, 'usage', '*');
  assert.deepEqual(await shown(reader, 'usage'), []);
});
