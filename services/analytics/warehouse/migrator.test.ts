import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { quiet, startWarehouse } from '../testing/warehouse.ts';
import { migrations, type WarehouseMigration } from './migrations.ts';
import { MigrationChanged, migrateWarehouse } from './migrator.ts';
import { database, type Warehouse } from './warehouse.ts';

const steps = migrations.flatMap(({ name, statements }) => statements({}).map((_, step) => `${name}/${step}`));

/** Dies at the given request to ClickHouse, before or after it was answered. */
function dying(warehouse: Warehouse, at: number, after: boolean): Warehouse {
  let left = at;
  const mortal = Object.create(warehouse) as Warehouse;
  const request = async <Result>(act: () => Promise<Result>): Promise<Result> => {
    left -= 1;
    if (left === 0 && !after) throw new Error('killed');
    const result = await act();
    if (left === 0) throw new Error('killed');
    return result;
  };
  mortal.run = (...query) => request(() => warehouse.run(...query));
  mortal.rows = (...query) => request(() => warehouse.rows(...query)) as never;
  mortal.insert = (...rows) => request(() => warehouse.insert(...rows));
  return mortal;
}

test('a migration that dies at any step is finished by the next; one that is done does nothing', async () => {
  const store = await startWarehouse({ migrated: false });
  try {
    const done: string[] = [];
    for (let attempt = 0; ; attempt += 1) {
      assert.ok(attempt < 60, 'it comes no further');
      const mortal = dying(store.warehouse, randomInt(4, 9), attempt % 2 === 0);
      const finished = await migrateWarehouse(mortal, {}, quiet).then(
        () => true,
        (error: Error) => {
          assert.equal(error.message, 'killed');
          return false;
        },
      );
      if (finished) break;
    }
    const rows = await store.warehouse.rows<{ name: string; step: number }>(
      `select name, step from ${database}.schema_migration order by name, step`,
    );
    done.push(...rows.map(({ name, step }) => `${name}/${step}`));
    assert.deepEqual(done, steps);
    assert.deepEqual(await migrateWarehouse(store.warehouse, {}, quiet), []);
    const changed: readonly WarehouseMigration[] = [{ name: '0001-tables', statements: () => ['select 1'] }];
    await assert.rejects(migrateWarehouse(store.warehouse, {}, quiet, changed), MigrationChanged);
  } finally {
    await store.stop();
  }
});

test('tables of a cluster are replicated, and every statement names the cluster', () => {
  const statements = migrations.flatMap((migration) => migration.statements({ cluster: 'main' }));
  for (const statement of statements) {
    assert.match(statement, / on cluster `main`/);
    if (statement.startsWith('create table')) assert.match(statement, /engine = Replicated(Replacing)?MergeTree\(/);
  }
});
