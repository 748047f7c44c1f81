import { once } from 'node:events';
import { createServer } from 'node:net';
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

/** What {@link startWarehouse} may do otherwise. */
export interface TestWarehouseOptions {
  /** False leaves the engine empty. @default true */
  readonly migrated?: boolean;
  /** Whether it comes back under the same address when it is killed and resumed. @default false */
  readonly fixedPort?: boolean;
}

/** Starts the engine and makes the tables. */
export async function startWarehouse(options: TestWarehouseOptions = {}): Promise<TestWarehouse> {
  const { migrated = true, fixedPort = false } = options;
  const server = await startClickHouse(fixedPort ? { env: { CLICKHOUSE_PORT: String(await freePort()) } } : {});
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

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
  return address.port;
}
