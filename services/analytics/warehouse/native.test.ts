import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { columnsOf } from '../ingest/rows.ts';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { type Columns, encodeNative } from './native.ts';
import { database } from './warehouse.ts';

let store: TestWarehouse;
before(async () => {
  store = await startWarehouse();
});
after(() => store?.stop());

const uuid = '0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b';
const columns = {
  place: 'UInt32',
  count: 'UInt64',
  status: 'Nullable(UInt16)',
  share: 'Float64',
  rest: 'Nullable(Float64)',
  allow: 'Bool',
  id: 'UUID',
  other: 'Nullable(UUID)',
  text: 'String',
  kind: 'LowCardinality(String)',
  list: 'Array(String)',
  time: "DateTime64(3, 'UTC')",
} as const satisfies Columns;

const row = (place: number) => ({
  place,
  count: Number.MAX_SAFE_INTEGER - place,
  status: place % 2 === 0 ? null : 599,
  share: place / 7,
  rest: place % 3 === 0 ? null : -place / 3,
  allow: place % 2 === 0,
  id: uuid.replace('0190', String(1000 + (place % 9000))),
  other: place % 5 === 0 ? null : uuid,
  // Lengths around those where one byte, two or three say how long a text is; letters of one to four bytes.
  text: ['é', '€', 'a', '𝄞'][place % 4]?.repeat(place),
  kind: place % 3 === 0 ? '' : `kind ${place % 300}`,
  list: Array.from({ length: place % 4 }, (_, index) => `${place}/${index}`),
  time: Date.UTC(2026, 9, 1) + place * 1001,
});

test('every type comes back from the engine as it was sent', async () => {
  const definitions = Object.entries(columns).map(([name, type]) => `${name} ${type}`);
  await store.warehouse.run(
    `create table ${database}.sample (${definitions.join(', ')}) engine = MergeTree order by place`,
  );
  const rows = [...Array.from({ length: 400 }, (_, place) => row(place)), row(40_000)];
  await store.warehouse.insertColumns('sample', columns, rows, 'one');
  const found = await store.warehouse.rows(
    `select * replace (toUnixTimestamp64Milli(time) as time) from ${database}.sample order by place`,
  );
  assert.deepEqual(found, rows);
  // Under its token it is there once.
  await store.warehouse.insertColumns('sample', columns, rows, 'one');
  const [{ count } = { count: 0 }] = await store.warehouse.rows<{ count: number }>(
    `select count() as count from ${database}.sample`,
  );
  assert.equal(count, rows.length);
});

test('what a column does not take is refused and named', () => {
  for (const count of [-1, 1.5, 2 ** 53, Number.NaN]) {
    assert.throws(() => encodeNative({ count: 'UInt64' }, [{ count }]), {
      name: 'RangeError',
      message: /no whole number/,
    });
  }
  for (const [status, type] of [
    [65_536, 'Nullable(UInt16)'],
    [-1, 'UInt16'],
    [2 ** 32, 'UInt32'],
    [1.5, 'UInt32'],
  ] as const) {
    assert.throws(() => encodeNative({ status: type }, [{ status }]), {
      name: 'RangeError',
      message: new RegExp(`^${status} is no whole number of (16|32) bits$`),
    });
  }
  for (const id of ['', uuid.slice(1), `${uuid}0`, uuid.replace('a', 'z')]) {
    assert.throws(() => encodeNative({ id: 'UUID' }, [{ id }]), { name: 'RangeError', message: /no UUID/ });
  }
});

test('columns that are sent are those of the tables, with their types', async () => {
  for (const [table, sent] of Object.entries(columnsOf)) {
    const found = await store.warehouse.rows<{ name: string; type: string }>(
      `select name, type from system.columns where database = {database:String} and table = {table:String}
      and default_kind = ''`,
      { database, table },
    );
    assert.deepEqual(Object.fromEntries(found.map(({ name, type }) => [name, type])), sent, table);
  }
});

test('a column of another type is refused by the engine, not converted to nonsense', async () => {
  const wrong = { place: 'UUID' } as const;
  const sent = store.warehouse.insertColumns('sample', wrong, [{ place: uuid }], 'wrong');
  await assert.rejects(sent, /convert|conversion|UInt32/i);
});
