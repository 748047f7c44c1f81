import { Admin, type AdminOptions, AuthenticationError } from '@platformatic/kafka';
import { z } from 'zod';
import type { Credentials } from '../settings.ts';

/** Variables of the brokers' address and authority. */
export const kafkaSettings = {
  KAFKA_BROKERS: z
    .string()
    .regex(/^[^\s,:]+:\d+(,[^\s,:]+:\d+)*$/, 'must be host:port, several separated by commas')
    .transform((list) => list.split(',')),
  KAFKA_CA_FILE: z.string().default('/secrets/ca/ca.crt'),
};

/** Where the brokers are, and the PEM of the authority that signed their certificates. */
export interface Brokers {
  readonly addresses: readonly string[];
  readonly ca: string;
}

/** Options of a client that signs in with SCRAM-SHA-512 over TLS. There is no other way in. */
export function clientOptions({ addresses, ca }: Brokers, { username, password }: Credentials): AdminOptions {
  return {
    clientId: 'somagent-bootstrap',
    bootstrapBrokers: [...addresses],
    tls: { ca, minVersion: 'TLSv1.3' },
    sasl: { mechanism: 'SCRAM-SHA-512', username, password },
    connectTimeout: 5000,
    requestTimeout: 20_000,
    timeout: 20_000,
    retries: 2,
    retryDelay: 300,
    // What was just changed must be seen.
    metadataMaxAge: 0,
  };
}

/** Runs work with an administrator's client and closes it. */
export async function withAdmin<T>(
  brokers: Brokers,
  admin: Credentials,
  work: (client: Admin) => Promise<T>,
): Promise<T> {
  const client = new Admin(clientOptions(brokers, admin));
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** True when the brokers answered and refused the user name or password; the client wraps it several times. */
export function isWrongPassword(error: unknown): boolean {
  if (error instanceof AuthenticationError) return true;
  if (error instanceof AggregateError) return error.errors.some(isWrongPassword);
  return error instanceof Error && error.cause !== undefined && isWrongPassword(error.cause);
}
