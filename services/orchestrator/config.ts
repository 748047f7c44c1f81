import {
  controlVariables,
  count,
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
  MODELS_FILE: text('the JSON file of providers and models, see services/models/README.md'),
  SESSION_MODEL: text('the public name of the model that answers sessions, e.g. soma-tiny'),
  SLM_MAX_TOKENS: count('the most tokens of one answer').default(256),
  MEMORY_URL: memoryVariables.MEMORY_URL.optional(),
  MEMORY_CA_FILE: memoryVariables.MEMORY_CA_FILE.optional(),
  MEMORY_TOKEN_FILE: memoryVariables.MEMORY_TOKEN_FILE.optional(),
  HISTORY_TURNS: count('how many earlier turns the model is shown').default(6),
  MAX_GENERATIONS: count('how many generations one worker runs at once').default(32),
});

/** Configuration of `worker`. */
export type WorkerConfig = z.output<typeof workerSchema>;
