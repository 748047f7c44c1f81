import { join } from 'node:path';
import { text } from './config.ts';
import type { Logger } from './log.ts';
import { onFileChange, readTlsFiles } from './tls.ts';

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

/**
 * Ends the process in order when its client certificate was renewed; its Deployment starts it again with the new one.
 * A connection takes its certificate once, at the start, and would be refused when that one has expired.
 * @param spread milliseconds within which the end comes, by chance, so that the pods of a service do not all end at once
 * @returns ends the watch
 */
export function endWhenRenewed(config: TemporalConfig, log: Logger, spread = 60_000): () => void {
  return onFileChange(join(config.TEMPORAL_TLS_DIR, 'tls.crt'), () => {
    const wait = Math.round(Math.random() * spread);
    log.info({ wait }, 'the client certificate was renewed: this process ends and is started again with it');
    setTimeout(() => process.kill(process.pid, 'SIGTERM'), wait);
  });
}
