import { port, text } from '@somagent/kit/config.ts';
import { z } from 'zod';

/** The variables of a server. */
export const ports = {
  PORT: port('the port of the HTTPS API').default(8443),
  HEALTH_PORT: port('the port of /healthz and /readyz').default(8081),
  TLS_DIR: text('the directory with tls.crt and tls.key of the service'),
};

/** The names of the two that sign. */
export const names = {
  LOG_ORIGIN: text('the name of the log in its checkpoints: a host and a path, e.g. eu-west.example.com/audit'),
  WITNESS_NAME: text('the name of the witness in its signatures, e.g. eu-west.example.com/witness'),
};

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
