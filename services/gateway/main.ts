import { createServer, type Server } from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createAdaptorServer } from '@hono/node-server';
import {
  ConfigError,
  createLogger,
  createPool,
  endWhenRenewed,
  type Logger,
  messageOf,
  onFileChange,
  onShutdown,
  readConfig,
  readTlsFiles,
  startHealthServer,
  temporalConnectionOptions,
} from '@somagent/kit';
import { openDatabase } from '@somagent/orchestrator/database.ts';
import { Client, Connection } from '@temporalio/client';
import { sql } from 'kysely';
import { createApp } from './app.ts';
import { IssuerKeys } from './authentication.ts';
import { type GatewayConfig, gatewaySchema } from './config.ts';
import { drainServer } from './drain.ts';
import { EventHub } from './event-hub.ts';
import { createHandlers } from './handlers.ts';
import { SessionReader } from './reader.ts';
import { Sessions } from './sessions.ts';

const log = createLogger({ service: 'gateway' });

async function main(): Promise<void> {
  const config = readConfig(gatewaySchema);
  const db = openDatabase(createPool(config, log));
  // Lazy, so that the gateway starts (not ready, and says why) also before Temporal does.
  const connection = Connection.lazy(temporalConnectionOptions(config));
  const client = new Client({ connection, namespace: config.TEMPORAL_NAMESPACE });
  const issuer = new IssuerKeys({ url: config.OIDC_JWKS_URL, caFile: config.OIDC_CA_FILE, log });
  const hub = new EventHub(config, log);
  const draining = new AbortController();
  const handlers = createHandlers({
    reader: new SessionReader(db),
    hub,
    log,
    draining: draining.signal,
    sessions: new Sessions(client, { taskQueue: config.TASK_QUEUE, idleTimeout: config.SESSION_IDLE_SECONDS * 1000 }),
  });
  const app = createApp({
    log,
    keys: issuer.keys,
    rules: { issuer: config.OIDC_ISSUER, audience: config.OIDC_AUDIENCE },
    rateLimit: config.RATE_LIMIT_PER_MINUTE,
    handlers,
  });

  await Promise.all([issuer.start(), hub.start()]);
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      temporal: async () => void (await connection.workflowService.getSystemInfo({})),
      postgres: async () => void (await sql`select 1 from session limit 1`.execute(db.untenanted)),
      events: async () => ensure(hub.connected, 'does not listen for events'),
      keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
    },
  });
  const server = await listen(config, app.fetch, log);
  endWhenRenewed(config, log);
  log.info({ port: config.PORT, issuer: config.OIDC_ISSUER }, 'gateway is listening');

  onShutdown(log, 29_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'send streams elsewhere', run: () => draining.abort() },
    { name: 'finish requests', run: () => drainServer(server, 25_000) },
    { name: 'stop fetching keys', run: () => issuer.stop() },
    { name: 'close events', run: () => hub.stop() },
    { name: 'close Temporal', run: () => connection.close() },
    { name: 'close Postgres', run: () => db.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
}

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}

type Fetch = (request: Request) => Response | Promise<Response>;

/** Serves HTTPS; a renewed certificate is used from the next connection on. */
async function listen(config: GatewayConfig, fetch: Fetch, logger: Logger): Promise<Server> {
  const options = () => ({ ...pick(readTlsFiles(config.TLS_DIR)), minVersion: 'TLSv1.2' as const });
  const server = createAdaptorServer({
    fetch,
    createServer,
    serverOptions: { ...options(), requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: 65_000 },
  }) as Server;
  onFileChange(join(config.TLS_DIR, 'tls.crt'), () => {
    try {
      server.setSecureContext(options());
      logger.info('the certificate was reloaded');
    } catch (error) {
      logger.error({ reason: messageOf(error) }, 'the new certificate cannot be used: the old one stays');
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(config.PORT, resolve);
  });
  return server;
}

const pick = ({ cert, key }: { readonly cert: string; readonly key: string }) => ({ cert, key });

main().catch((error: unknown) => {
  log.fatal(error instanceof ConfigError ? {} : { err: error }, messageOf(error));
  process.exit(1);
});
