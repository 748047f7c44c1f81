import { quotaVariables, userTokenVariables } from '@somagent/governance';
import {
  controlVariables,
  count,
  httpsUrl,
  kafkaVariables,
  port,
  postgresVariables,
  text,
  workloadVariables,
} from '@somagent/kit';
import { policyVariables } from '@somagent/policy';
import { openFgaVariables } from '@somagent/relations';
import { z } from 'zod';

const list = (description: string) =>
  z
    .string()
    .transform((value) => value.split(',').map((item) => item.trim()))
    .describe(description);

/** The variables of `migrate`. */
export const migrateSchema = z.object(postgresVariables);

const indexVariables = {
  QDRANT_URL: httpsUrl('the address of Qdrant, e.g. https://qdrant.local-data.svc:6333'),
  QDRANT_API_KEY_FILE: text('the file with the API key of Qdrant'),
  QDRANT_CA_FILE: text('the PEM file of the authority that signed the certificate of Qdrant'),
  EMBEDDINGS_URL: httpsUrl('the https address of the embeddings worker, ending in /v1'),
  EMBEDDINGS_MODEL: text('the name of the model of the embeddings worker'),
  EMBEDDINGS_DIMENSIONS: count('the length of a vector of that model').default(384),
  EMBEDDINGS_TOKEN_FILE: text('the file with the token by which this service shows the embeddings worker who it is'),
  EMBEDDINGS_CA_FILE: text('the PEM file of the authority that signed the certificate of the embeddings worker'),
  DEDICATED_TENANTS: list('the tenants with a collection of their own, by commas').default([]),
  NEAR_DUPLICATE: z.coerce
    .number()
    .gt(0)
    .max(1)
    .describe('the cosine from which on two facts of a scope are the same, above 0 and at most 1')
    .default(0.985),
};

/** The variables of `reindex`. */
export const reindexSchema = z.object({ ...postgresVariables, ...indexVariables });

/** The variables of `serve`. */
export const serveSchema = z.object({
  ...postgresVariables,
  ...kafkaVariables,
  ...userTokenVariables,
  ...controlVariables,
  ...policyVariables,
  ...openFgaVariables,
  ...workloadVariables,
  ...quotaVariables,
  ...indexVariables,
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz, /readyz, /routes and /memory').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the service'),
  SLM_URL: httpsUrl('the https address of the model that summarizes, ending in /v1'),
  SLM_MODEL: text('the name of that model, e.g. soma-tiny'),
  SLM_TOKEN_FILE: text('the file with the token by which this service shows that model who it is'),
  SLM_CA_FILE: text('the PEM file of the authority that signed the certificate of that model'),
  SUMMARY_TOKENS: count('the most tokens of a summary').default(200),
  SUMMARY_CHARACTERS: count('the most characters of memories that the model is shown for one summary').default(6000),
  EPISODIC_DAYS: count('the days after which an episode expires that says nothing else').default(180),
  RECALL_DEADLINE_MS: count('the milliseconds that a recall waits for vectors').default(500),
  SWEEP_SECONDS: count('the seconds between two looks for memories whose time is over').default(60),
});

/** Configuration of `reindex`. */
export type ReindexConfig = z.output<typeof reindexSchema>;
/** Configuration of `serve`. */
export type ServeConfig = z.output<typeof serveSchema>;
