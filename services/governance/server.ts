import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import { type Logger, messageOf, onFileChange, readTlsFiles, startTracing } from '@somagent/kit';
import type { GovernedApp } from './app.ts';
import { drainServer } from './drain.ts';

/** Options of {@link serveGoverned}. */
export interface ServeOptions {
  readonly app: Pick<GovernedApp, 'fetch' | 'service'>;
  /** 0 takes a free one. */
  readonly port: number;
  /** Directory with tls.crt and tls.key. */
  readonly tlsDirectory: string;
  readonly log: Logger;
  /** @default every interface */
  readonly host?: string;
}

/** A governed application that listens. */
export interface GovernedServer {
  readonly port: number;
  /** Stops taking connections and waits for the requests in flight, at most `limit` milliseconds. */
  drain(limit: number): Promise<void>;
}

/**
 * Serves an application over HTTPS, and traces it where {@link startTracing} is configured; a renewed certificate is used
 * from the next connection on.
 * @throws ConfigError
 */
export async function serveGoverned(options: ServeOptions): Promise<GovernedServer> {
  const { app, log, tlsDirectory } = options;
  startTracing(app.service, log);
  const secure = () => {
    const { cert, key } = readTlsFiles(tlsDirectory);
    return { cert, key, minVersion: 'TLSv1.2' as const };
  };
  const server = createAdaptorServer({
    fetch: app.fetch,
    createServer,
    serverOptions: { ...secure(), requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: 65_000 },
  }) as Server;
  const unwatch = onFileChange(join(tlsDirectory, 'tls.crt'), () => {
    try {
      server.setSecureContext(secure());
      log.info('the certificate was reloaded');
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'the new certificate cannot be used: the old one stays');
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: options.port, ...(options.host && { host: options.host }) }, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    drain: (limit) => {
      unwatch();
      return drainServer(server, limit);
    },
  };
}
