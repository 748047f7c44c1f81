import { controlVariables, count, httpsUrl, kafkaVariables, port, postgresVariables, text } from '@somagent/kit';
import { z } from 'zod';
import { type CheckerOptions, RelationChecker } from './checker.ts';
import { OpenFga } from './client.ts';
import { locateModel, storeName } from './store.ts';

/** The variables of a client of OpenFGA. */
export const openFgaVariables = {
  OPENFGA_URL: httpsUrl('the address of OpenFGA, e.g. https://openfga.local-identity.svc:8443'),
  OPENFGA_TOKEN_FILE: text('the file with the preshared key of OpenFGA'),
  OPENFGA_CA_FILE: text('the PEM file of the authority that signed the certificate of OpenFGA'),
  OPENFGA_STORE: text('the name of the store').default(storeName),
};

/** Values of {@link openFgaVariables}. */
export interface OpenFgaConfig {
  readonly OPENFGA_URL: string;
  readonly OPENFGA_TOKEN_FILE: string;
  readonly OPENFGA_CA_FILE: string;
  readonly OPENFGA_STORE: string;
}

/** A client of OpenFGA from the environment's values. */
export const openFgaOf = (config: OpenFgaConfig): OpenFga =>
  new OpenFga({
    url: config.OPENFGA_URL,
    tokenFile: config.OPENFGA_TOKEN_FILE,
    caFile: config.OPENFGA_CA_FILE,
  });

/** A checker from the environment's values. */
export function relationCheckerOf(config: OpenFgaConfig, options: Pick<CheckerOptions, 'facts'> = {}): RelationChecker {
  const client = openFgaOf(config);
  return new RelationChecker({ ...options, client, locate: () => locateModel(client, config.OPENFGA_STORE) });
}

const { IDENTITY_URL, IDENTITY_CA_FILE, IDENTITY_TOKEN_FILE } = controlVariables;

/** The variables of `reconcile`. */
export const reconcileSchema = z.object({
  ...openFgaVariables,
  ...kafkaVariables,
  // Of the database of sessions.
  ...postgresVariables,
  IDENTITY_URL,
  IDENTITY_CA_FILE,
  IDENTITY_TOKEN_FILE,
});

/** The variables of `worker`. */
export const workerSchema = reconcileSchema.extend({
  HEALTH_PORT: port('the port of /healthz and /readyz').default(8081),
  RECONCILE_SECONDS: count('the seconds between two reconciliations').default(300),
});

/** Configuration of `reconcile`. */
export type ReconcileConfig = z.output<typeof reconcileSchema>;
/** Configuration of `worker`. */
export type WorkerConfig = z.output<typeof workerSchema>;
