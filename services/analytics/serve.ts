import { setTimeout as sleep } from 'node:timers/promises';
import type { OutgoingEvent } from '@somagent/events';
import {
  createGovernedApp,
  IdentityApiKeys,
  KafkaVerdictSink,
  limitsOf,
  PostgresQuota,
  type QuotaTables,
  type RelationChecker,
  serveGoverned,
  userTokens,
} from '@somagent/governance';
import {
  appendEvents,
  ControlState,
  createPool,
  KafkaProducer,
  type Logger,
  OutboxRelay,
  onShutdown,
  startHealthServer,
  TenantDatabase,
} from '@somagent/kit';
import { createPolicyEngine } from '@somagent/policy';
import { createHandlers } from './api/handlers.ts';
import { Reports } from './api/reports.ts';
import { routes } from './api/routes.ts';
import type { ServeConfig } from './config.ts';
import { forecastAgain } from './forecast/forecaster.ts';
import { Ingester } from './ingest/ingester.ts';
import { registrySchemas } from './ingest/registry.ts';
import { sweepAgain } from './warehouse/retention.ts';
import { Warehouse } from './warehouse/warehouse.ts';

const service = 'analytics';

/** ClickHouse as who owns it and as who may only read, and the way into it. */
function openWarehouse(config: ServeConfig, log: Logger) {
  const warehouse = new Warehouse(config);
  const reader = new Warehouse({ ...config, CLICKHOUSE_CREDENTIALS_DIR: config.CLICKHOUSE_READER_CREDENTIALS_DIR });
  const ingester = new Ingester({
    kafka: config,
    warehouse,
    schemas: registrySchemas(config),
    log,
    batch: config.INGEST_BATCH,
    pace: config.INGEST_PACE_MS,
    replay: config.INGEST_REPLAY === 'yes',
  });
  return { warehouse, reader, ingester, reports: new Reports(reader) };
}

/** What governs requests. */
function openGovernance(config: ServeConfig, log: Logger) {
  const db = new TenantDatabase<QuotaTables>(createPool(config, log));
  const kafka = new KafkaProducer(config, { clientId: service });
  const store = (events: readonly OutgoingEvent[]) => appendEvents(db.untenanted, events);
  const identity = { url: config.IDENTITY_URL, caFile: config.IDENTITY_CA_FILE, tokenFile: config.IDENTITY_TOKEN_FILE };
  return {
    db,
    kafka,
    ...userTokens(config, log),
    apiKeys: new IdentityApiKeys({ ...identity, log }),
    control: new ControlState({ ...identity, log }),
    policy: createPolicyEngine(config, { service, store, log }),
    quota: new PostgresQuota({ database: db, limits: limitsOf(service, config), log }),
    verdicts: new KafkaVerdictSink({ producer: kafka, log, spill: store }),
    relay: new OutboxRelay({ database: config, sink: kafka, log }),
  };
}

/** No route here asks for a relation: roles decide. One that did would be refused. */
const noRelations: RelationChecker = {
  check: () => Promise.reject(new Error('analytics asks for no relations')),
};

/** Works that come again by themselves, until they are ended. */
function keepHouse(config: ServeConfig, warehouse: Warehouse, log: Logger) {
  const stop = new AbortController();
  const program = { python: config.PYTHON, program: config.FORECAST_PROGRAM };
  const running = Promise.all([
    sweepAgain(warehouse, log, stop.signal),
    forecastAgain({ warehouse, program, minutes: config.FORECAST_MINUTES, log, signal: stop.signal }),
  ]);
  return {
    end: async () => {
      stop.abort();
      await running;
    },
  };
}

/** Brings events into ClickHouse and serves the API until the process is asked to end. */
export async function serve(config: ServeConfig, log: Logger): Promise<void> {
  const { warehouse, reader, ingester, reports } = openWarehouse(config, log);
  const { db, kafka, issuer, tokens, apiKeys, control, policy, quota, verdicts, relay } = openGovernance(config, log);
  const app = createGovernedApp({
    service,
    title: 'SomaGent analytics',
    routes,
    handlers: createHandlers({ reports }),
    authentication: { tokens, apiKeys },
    control,
    policy,
    quota,
    verdicts,
    relations: noRelations,
    log,
  });
  control.start();
  await Promise.all([issuer.start(), policy.start()]);
  relay.start();
  ingester.start();
  const house = keepHouse(config, warehouse, log);
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      clickhouse: () => reader.check(),
      kafka: async () => ensure(ingester.joined, 'does not read from Kafka'),
      keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
      control: () => control.check(),
      policy: policy.check,
      verdicts: async () => ensure(verdicts.accepting, 'verdicts can be recorded nowhere'),
    },
    documents: { '/routes': app.routes, '/analytics': () => ({ missed: ingester.missed }) },
  });
  const server = await serveGoverned({ app, port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  log.info({ port: server.port, clickhouse: config.CLICKHOUSE_URL }, 'analytics is listening');

  onShutdown(log, 29_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'finish requests', run: () => server.drain(20_000) },
    { name: 'stop reading events', run: () => ingester.stop() },
    { name: 'end the housekeeping', run: () => house.end() },
    { name: 'record verdicts', run: () => verdicts.flush() },
    { name: 'stop the relay', run: () => relay.stop() },
    { name: 'close Kafka', run: () => kafka.close() },
    { name: 'stop fetching keys', run: () => issuer.stop() },
    { name: 'stop following the control feed', run: () => control.stop() },
    { name: 'stop looking for policies', run: () => policy.stop() },
    { name: 'close Postgres', run: () => db.destroy() },
    { name: 'close ClickHouse', run: () => Promise.all([warehouse.close(), reader.close()]) },
    { name: 'close health', run: () => health.close() },
  ]);
}

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
