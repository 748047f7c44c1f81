import { createHash } from 'node:crypto';
import type { Logger } from '@somagent/kit';
import { migrations as all, type TableLayout, type WarehouseMigration } from './migrations.ts';
import { database, type Warehouse } from './warehouse.ts';

/** A migration that was applied is not the one that the code has. */
export class MigrationChanged extends Error {
  constructor(name: string, step: number) {
    super(
      `migration ${name}, step ${step}, was applied with other text. Restore it and write the change as a new migration`,
    );
    this.name = 'MigrationChanged';
  }
}

interface Applied {
  readonly name: string;
  readonly step: number;
  readonly hash: string;
}

const hashOf = (statement: string) => createHash('sha256').update(statement).digest('hex');

/**
 * Applies what is missing, step by step. ClickHouse has no transactions over statements: each step is recorded after
 * it, and a step that was killed before it was recorded runs again. The caller holds the lock.
 * @returns the steps that ran now, `name/number`
 * @throws MigrationChanged
 */
export async function migrateWarehouse(
  warehouse: Warehouse,
  layout: TableLayout,
  log: Logger,
  migrations: readonly WarehouseMigration[] = all,
): Promise<readonly string[]> {
  const place = layout.cluster === undefined ? '' : ` on cluster \`${layout.cluster}\``;
  await warehouse.run(`create database if not exists ${database}${place}`);
  await warehouse.run(`create table if not exists ${database}.schema_migration${place} (
    name String, step UInt32, hash String, at DateTime64(3, 'UTC') default now64(3)
  ) engine = ${layout.cluster === undefined ? '' : 'Replicated'}MergeTree order by (name, step)`);
  const applied = await warehouse.rows<Applied>(`select name, step, hash from ${database}.schema_migration`);
  const known = new Map(applied.map(({ name, step, hash }) => [`${name}/${step}`, hash]));
  const done: string[] = [];
  for (const { name, statements } of migrations) {
    for (const [step, statement] of statements(layout).entries()) {
      const hash = hashOf(statement);
      const before = known.get(`${name}/${step}`);
      if (before !== undefined && before !== hash) throw new MigrationChanged(name, step);
      if (before !== undefined) continue;
      await warehouse.run(statement);
      await warehouse.insert('schema_migration', [{ name, step, hash }], `${name}/${step}`);
      log.info({ migration: name, step }, 'a step of the schema of ClickHouse was applied');
      done.push(`${name}/${step}`);
    }
  }
  return done;
}
