import { fileURLToPath } from 'node:url';
import type { TestEventKafka } from '@somagent/events/testing.ts';
import type { TestWarehouse } from './warehouse.ts';

/** The service's own way from Kafka into ClickHouse as a program of its own. */
export const ingestProgram = fileURLToPath(new URL('ingest.ts', import.meta.url));

/** The environment of {@link ingestProgram}. Nothing newer than this service comes: the registry is never asked. */
export async function ingestEnvironment(kafka: TestEventKafka, store: TestWarehouse): Promise<NodeJS.ProcessEnv> {
  return {
    ...process.env,
    ...(await kafka.variables('analytics')),
    ...store.variables(),
    SCHEMA_REGISTRY_URL: 'https://127.0.0.1:1',
    SCHEMA_REGISTRY_CA_FILE: kafka.caFile,
    SCHEMA_REGISTRY_KEY_FILE: kafka.caFile,
  };
}
