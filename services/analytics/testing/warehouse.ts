import { startClickHouse, type TestClickHouse } from '@somagent/clickhouse-front/testing.ts';
import { createLogger } from '@somagent/kit';
import { migrateWarehouse } from '../warehouse/migrator.ts';
import { type ClickHouseConfig, Warehouse } from '../warehouse/warehouse.ts';

/** A log that says nothing. */
export const quiet = createLogger({ service: 'analytics-test', level: 'silent' });

/** A real ClickHouse engine with the tables of this service. */
export interface TestWarehouse {
  readonly server: TestClickHouse;
  /** As the owner of the tables. */
  readonly warehouse: Warehouse;
  /** The variables of a service that owns, or only reads. */
  variables(user?: 'analytics' | 'reader'): ClickHouseConfig;
  stop(): Promise<void>;
}

/** Starts the engine and makes the tables. @param migrated false leaves it empty */
export async function startWarehouse({ migrated = true } = {}): Promise<TestWarehouse> {
  const server = await startClickHouse();
  const variables = (user: 'analytics' | 'reader' = 'analytics') => ({
    CLICKHOUSE_URL: server.url,
    CLICKHOUSE_CREDENTIALS_DIR: server[user].credentialsDir,
    CLICKHOUSE_CA_FILE: server.caFile,
  });
  const warehouse = new Warehouse(variables());
  const stop = async () => {
    await warehouse.close();
    await server.stop();
  };
  try {
    if (migrated) await migrateWarehouse(warehouse, {}, quiet);
  } catch (error) {
    await stop();
    throw error;
  }
  return { server, warehouse, variables, stop };
}
