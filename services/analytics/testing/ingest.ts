import { createLogger, readConfig } from '@somagent/kit';
import { z } from 'zod';
import { ingestVariables } from '../config.ts';
import { Ingester } from '../ingest/ingester.ts';
import { registrySchemas } from '../ingest/registry.ts';
import { Warehouse } from '../warehouse/warehouse.ts';

// The way from Kafka into ClickHouse alone, in a process that a test can kill.
const config = readConfig(z.object(ingestVariables));
const ingester = new Ingester({
  kafka: config,
  warehouse: new Warehouse(config),
  schemas: registrySchemas(config),
  log: createLogger({ service: 'analytics-ingest', level: 'error' }),
  batch: config.INGEST_BATCH,
  pace: config.INGEST_PACE_MS,
  replay: config.INGEST_REPLAY === 'yes',
});
ingester.start();
process.on('SIGTERM', () => void ingester.stop().then(() => process.exit(0)));
