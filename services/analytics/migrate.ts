import { createPool, type Logger, type PostgresConfig, TenantDatabase } from '@somagent/kit';
import { connectionSettings } from '@somagent/kit/postgres.ts';
import pg from 'pg';
import type { MigrateConfig } from './config.ts';
import { migratePostgres } from './migrations.ts';
import { migrateWarehouse } from './warehouse/migrator.ts';
import { Warehouse } from './warehouse/warehouse.ts';

/** Any number that nothing else in this database locks. */
const lockNumber = 5_083_401;

/**
 * Does work while nobody else does it. The lock is Postgres's and bound to its connection: it ends with the process,
 * however that ends. ClickHouse has no such thing.
 */
export async function alone<Result>(config: PostgresConfig, work: () => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ ...connectionSettings(config), keepAlive: true });
  await client.connect();
  try {
    await client.query('select pg_advisory_lock($1)', [lockNumber]);
    return await work();
  } finally {
    await client.end();
  }
}

/** Brings Postgres and ClickHouse to their newest versions, one process at a time; can be killed and run again. */
export async function migrateAll(config: MigrateConfig, log: Logger): Promise<void> {
  await alone(config, async () => {
    const db = new TenantDatabase<object>(createPool(config, log));
    const warehouse = new Warehouse(config);
    try {
      const postgres = (await migratePostgres(db.untenanted)).map(({ migrationName }) => migrationName);
      const steps = await migrateWarehouse(warehouse, { cluster: config.CLICKHOUSE_CLUSTER }, log);
      log.info({ postgres, clickhouse: steps.length }, 'the schemas are at their newest versions');
    } finally {
      await Promise.all([db.destroy(), warehouse.close()]);
    }
  });
}
