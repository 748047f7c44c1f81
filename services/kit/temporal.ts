import { text } from './config.ts';
import { readTlsFiles } from './tls.ts';

/** The variables of a connection to Temporal, for clients and workers alike. */
export const temporalVariables = {
  TEMPORAL_ADDRESS: text('host:port of the Temporal frontend'),
  TEMPORAL_NAMESPACE: text('the Temporal namespace, e.g. somagent'),
  TEMPORAL_TLS_DIR: text('the directory with tls.crt, tls.key and ca.crt of the client certificate'),
  TEMPORAL_SERVER_NAME: text('the name in the certificate of the Temporal frontend'),
  TASK_QUEUE: text('the task queue of session workflows').default('sessions'),
};

/** The part of the configuration that a connection needs. */
export interface TemporalConfig {
  readonly TEMPORAL_ADDRESS: string;
  readonly TEMPORAL_TLS_DIR: string;
  readonly TEMPORAL_SERVER_NAME: string;
}

/** Options for `Connection.connect` and `NativeConnection.connect`: TLS in both directions, no plain connection. */
export function temporalConnectionOptions(config: TemporalConfig) {
  const files = readTlsFiles(config.TEMPORAL_TLS_DIR);
  return {
    address: config.TEMPORAL_ADDRESS,
    tls: {
      serverNameOverride: config.TEMPORAL_SERVER_NAME,
      serverRootCACertificate: Buffer.from(files.ca),
      clientCertPair: { crt: Buffer.from(files.cert), key: Buffer.from(files.key) },
    },
  };
}
