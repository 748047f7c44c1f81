import { quotaVariables, userTokenVariables } from '@somagent/governance';
import { controlVariables, httpsUrl, kafkaVariables, port, postgresVariables, text } from '@somagent/kit';
import { policyVariables } from '@somagent/policy';
import { z } from 'zod';

const ports = {
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz and /readyz').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the service'),
};

const names = {
  LOG_ORIGIN: text('the name of the log in its checkpoints: a host and a path, e.g. eu-west.example.com/audit'),
  WITNESS_NAME: text('the name of the witness in its signatures, e.g. eu-west.example.com/witness'),
};

/** The variables of `migrate`. */
export const migrateSchema = z.object({
  ...postgresVariables,
  AUDIT_ROLE: text('the role that the service connects as').default('audit_writer'),
});

/** The variables of `serve`. */
export const serveSchema = z.object({
  ...postgresVariables,
  ...kafkaVariables,
  ...userTokenVariables,
  ...controlVariables,
  ...policyVariables,
  ...quotaVariables,
  ...ports,
  ...names,
  LOG_KEY_FILE: text('the PEM file with the private Ed25519 key of the log'),
  WITNESS_URL: httpsUrl('the address of the witness'),
  WITNESS_CA_FILE: text('the PEM file of the authority that signed the certificate of the witness'),
  WITNESS_PUBLIC_KEY_FILE: text('the PEM file with the public Ed25519 key of the witness'),
});

/** Configuration of `serve`. */
export type ServeConfig = z.output<typeof serveSchema>;

/** The variables of `witness`. */
export const witnessSchema = z.object({
  ...ports,
  ...names,
  LOG_PUBLIC_KEY_FILE: text('the PEM file with the public Ed25519 key of the log'),
  WITNESS_KEY_FILE: text('the PEM file with the private Ed25519 key of the witness'),
  STATE_DIR: text('a directory on a volume of the witness alone'),
});

/** Configuration of `witness`. */
export type WitnessConfig = z.output<typeof witnessSchema>;
