import { quotaVariables, userTokenVariables } from '@somagent/governance';
import { controlVariables, httpsUrl, kafkaVariables, postgresVariables, text } from '@somagent/kit';
import { policyVariables } from '@somagent/policy';
import { z } from 'zod';
import { names, ports } from './witness-config.ts';

/** The variables of `migrate`. */
export const migrateSchema = z.object({
  ...postgresVariables,
  AUDIT_ROLE: text('the role that the service connects as').default('audit_writer'),
});

/** Configuration of `migrate`. */
export type MigrateConfig = z.output<typeof migrateSchema>;

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
