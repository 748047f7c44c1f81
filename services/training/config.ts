import { quotaVariables, userTokenVariables } from '@somagent/governance';
import { controlVariables, httpsUrl, kafkaVariables, port, postgresVariables, text } from '@somagent/kit';
import { policyVariables } from '@somagent/policy';
import { z } from 'zod';

/** The variables of `migrate`. */
export const migrateSchema = z.object(postgresVariables);

/** The variables of `serve`. */
export const serveSchema = z.object({
  ...postgresVariables,
  ...kafkaVariables,
  ...userTokenVariables,
  ...controlVariables,
  ...policyVariables,
  ...quotaVariables,
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz, /readyz and /routes').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the service'),
  SESSIONS_DATABASE: text('the database with the sessions, on the same server').default('sessions'),
  SESSIONS_CREDENTIALS_DIR: text('the directory with username and password of the reader of the sessions'),
  OBJECT_STORE_URL: httpsUrl(
    'the address of the bucket of models, e.g. https://object-store.local-data.svc:7070/models',
  ),
  OBJECT_STORE_CREDENTIALS_DIR: text('the directory with the key of the object store: username and password'),
  OBJECT_STORE_CA_FILE: text('the PEM file of the authority of the object store'),
  LINEAGE_KEY_FILE: text('the PEM file with the private Ed25519 key that signs lineages'),
  BUNDLED_MODEL: text('the GGUF file that serves as long as none was promoted').default('/models/bundled.gguf'),
  TRAINING_CORPUS: text('the folder of the text that the bundled model learned from').default('/app/corpus'),
  TRAINING_PYTHON: text('the Python with Ray and JAX').default('python3'),
  TRAINING_DIR: text('a writable folder for a run; at most 1 GiB').default('/tmp'),
});

/** Configuration of `serve`. */
export type ServeConfig = z.output<typeof serveSchema>;
