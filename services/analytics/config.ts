import { quotaVariables, userTokenVariables } from '@somagent/governance';
import { controlVariables, count, kafkaVariables, port, postgresVariables, text } from '@somagent/kit';
import { policyVariables } from '@somagent/policy';
import { z } from 'zod';
import { registryVariables } from './ingest/registry.ts';
import { clickHouseVariables } from './warehouse/warehouse.ts';

/** The variables of `migrate`. */
export const migrateSchema = z.object({
  ...postgresVariables,
  ...clickHouseVariables,
  CLICKHOUSE_CLUSTER: z
    .string()
    .regex(/^[a-z][a-z0-9_-]*$/)
    .optional()
    .describe('the name of the cluster of ClickHouse, where there is more than one server'),
});

/** Configuration of `migrate`. */
export type MigrateConfig = z.output<typeof migrateSchema>;

/** What reading from Kafka into ClickHouse needs. */
export const ingestVariables = {
  ...kafkaVariables,
  ...clickHouseVariables,
  ...registryVariables,
  INGEST_BATCH: count('the most messages that are taken at once').default(20_000),
  INGEST_PACE_MS: count('the shortest time between two rounds of inserts, milliseconds').default(800),
  INGEST_REPLAY: z
    .enum(['yes', 'no'])
    .default('no')
    .describe('yes to offer everything that Kafka still has once more; what is stored stays as it is'),
};

/** The variables of `serve`. */
export const serveSchema = z.object({
  ...postgresVariables,
  ...userTokenVariables,
  ...controlVariables,
  ...policyVariables,
  ...quotaVariables,
  ...ingestVariables,
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz, /readyz and /routes').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the service'),
  CLICKHOUSE_READER_CREDENTIALS_DIR: text(
    'the directory with the files username and password of the user who may only select',
  ),
  PYTHON: text('the Python that has the packages of images/analytics/requirements.txt').default('python3'),
  FORECAST_PROGRAM: text('the file forecast/model.py').default('/app/forecast/model.py'),
  FORECAST_MINUTES: count('minutes between two forecasts').default(60),
});

/** Configuration of `serve`. */
export type ServeConfig = z.output<typeof serveSchema>;
