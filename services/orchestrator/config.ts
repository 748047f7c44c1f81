import {
  controlVariables,
  count,
  httpsUrl,
  kafkaVariables,
  port,
  postgresVariables,
  temporalVariables,
  text,
} from '@somagent/kit';
import { memoryVariables } from '@somagent/memory-gateway/client.ts';
import { policyVariables } from '@somagent/policy';
import { z } from 'zod';

const health = { HEALTH_PORT: port('the port of /healthz and /readyz').default(8081) };

/** The variables of `migrate`. */
export const migrateSchema = z.object(postgresVariables);

/** The variables of `worker`. */
export const workerSchema = z.object({
  ...temporalVariables,
  ...postgresVariables,
  ...kafkaVariables,
  ...policyVariables,
  ...controlVariables,
  ...health,
  SLM_URL: httpsUrl('the https address of the model endpoint, ending in /v1'),
  SLM_MODEL: text('the name of the model, e.g. soma-tiny'),
  SLM_TOKEN_FILE: text('the file with the token by which this worker shows the model endpoint who it is'),
  SLM_CA_FILE: text('the PEM file of the authority that signed the certificate of the model endpoint'),
  SLM_MAX_TOKENS: count('the most tokens of one answer').default(256),
  MEMORY_URL: memoryVariables.MEMORY_URL.optional(),
  MEMORY_CA_FILE: memoryVariables.MEMORY_CA_FILE.optional(),
  MEMORY_TOKEN_FILE: memoryVariables.MEMORY_TOKEN_FILE.optional(),
  HISTORY_TURNS: count('how many earlier turns the model is shown').default(6),
  MAX_GENERATIONS: count('how many generations one worker runs at once').default(32),
});

/** Configuration of `worker`. */
export type WorkerConfig = z.output<typeof workerSchema>;
