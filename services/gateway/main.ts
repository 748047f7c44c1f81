import { setTimeout as sleep } from 'node:timers/promises';
import { recallChannel } from '@somagent/budget';
import {
  createGovernedApp,
  IdentityApiKeys,
  KafkaVerdictSink,
  limitsOf,
  PostgresQuota,
  serveGoverned,
  userTokens,
} from '@somagent/governance';
import {
  appendEvents,
  ConfigError,
  ControlState,
  createLogger,
  createPool,
  endWhenRenewed,
  KafkaProducer,
  messageOf,
  type OutboxEvent,
  onShutdown,
  readConfig,
  startHealthServer,
  TenantDatabase,
  temporalConnectionOptions,
} from '@somagent/kit';
import { createModels, readModelsFile } from '@somagent/models';
import type { Database } from '@somagent/orchestrator/database.ts';
import { traceSender } from '@somagent/orchestrator/trace-client.ts';
import { createPolicyEngine } from '@somagent/policy';
import { relationCheckerOf } from '@somagent/relations';
import { Client, Connection } from '@temporalio/client';
import { sql } from 'kysely';
import { createBudgetHandlers } from './budget-handlers.ts';
import { type GatewayConfig, gatewaySchema } from './config.ts';
import { EventHub } from './event-hub.ts';
import { createHandlers } from './handlers.ts';
import { createOpenAiHandlers } from './openai-handlers.ts';
import { SessionReader } from './reader.ts';
import { routes } from './routes.ts';
import { sessionFacts } from './session-facts.ts';
import { Sessions } from './sessions.ts';
import { Spending } from './spending.ts';
import { ToolPolicy } from './tool-policy.ts';

const service = 'gateway';
const log = createLogger({ service });

/** What the gateway keeps open. */
function connect(config: GatewayConfig) {
  const db = new TenantDatabase<Database>(createPool(config, log));
  const spill = (events: readonly OutboxEvent[]) => appendEvents(db.untenanted, events);
  // Lazy, so that the gateway starts (not ready, and says why) also before Temporal does.
  const temporal = Connection.lazy(temporalConnectionOptions(config));
  const reader = new SessionReader(db);
  const kafka = new KafkaProducer(config, { clientId: service });
  const hub = new EventHub(config, log);
  // Longer than a request may take: what has expired can't have run on.
  const seconds = config.MODEL_DEADLINE_SECONDS + 60;
  const spending = new Spending({ database: db, log, seconds, hears: () => hub.connected });
  hub.follow(recallChannel, (tenant) => spending.recalled(tenant));
  const identity = { url: config.IDENTITY_URL, caFile: config.IDENTITY_CA_FILE, tokenFile: config.IDENTITY_TOKEN_FILE };
  return {
    db,
    temporal,
    reader,
    kafka,
    ...userTokens(config, log),
    apiKeys: new IdentityApiKeys({ ...identity, log }),
    control: new ControlState({ ...identity, log }),
    policy: createPolicyEngine(config, { service, store: spill, log }),
    relations: relationCheckerOf(config, { facts: sessionFacts(reader) }),
    quota: new PostgresQuota({ database: db, limits: limitsOf(service, config), log }),
    verdicts: new KafkaVerdictSink({ producer: kafka, log, spill }),
    hub,
    models: createModels(readModelsFile(config.MODELS_FILE), { log }),
    spending,
  };
}

type Connections = ReturnType<typeof connect>;

function createApp(config: GatewayConfig, open: Connections, draining: AbortSignal) {
  const { db, tokens, apiKeys, control, policy, relations, quota, verdicts, reader, hub, models, spending } = open;
  const client = new Client({
    connection: open.temporal,
    namespace: config.TEMPORAL_NAMESPACE,
    interceptors: { workflow: [traceSender] },
  });
  const sessions = new Sessions(client, {
    taskQueue: config.TASK_QUEUE,
    idleTimeout: config.SESSION_IDLE_SECONDS * 1000,
  });
  return createGovernedApp({
    service,
    title: 'SomaGent gateway',
    routes,
    handlers: {
      ...createHandlers({ reader, hub, log, draining, control, relations, sessions }),
      ...createOpenAiHandlers({
        ...{ models, spending, control, relations, log },
        tools: new ToolPolicy({ policy, control, verdicts }),
        deadlineMs: config.MODEL_DEADLINE_SECONDS * 1000,
      }),
      ...createBudgetHandlers({ database: db }),
    },
    authentication: { tokens, apiKeys },
    control,
    policy,
    relations,
    quota,
    verdicts,
    log,
  });
}

/** What has to answer before traffic may come. */
function checks(
  config: GatewayConfig,
  { db, temporal, hub, issuer, control, policy, relations, verdicts }: Connections,
) {
  return {
    temporal: async () => void (await temporal.workflowService.getSystemInfo({})),
    postgres: async () => void (await sql`select 1 from session limit 1`.execute(db.untenanted)),
    events: async () => ensure(hub.connected, 'does not listen for events'),
    keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
    control: () => control.check(),
    policy: policy.check,
    relations: () => relations.ensureReady(),
    verdicts: async () => ensure(verdicts.accepting, 'verdicts can be recorded nowhere'),
  };
}

async function main(): Promise<void> {
  const config = readConfig(gatewaySchema);
  const open = connect(config);
  const draining = new AbortController();
  const app = createApp(config, open, draining.signal);
  open.control.start();
  await Promise.all([open.issuer.start(), open.hub.start(), open.policy.start()]);
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: checks(config, open),
    documents: { '/routes': app.routes },
  });
  const server = await serveGoverned({ app, port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  endWhenRenewed(config, log);
  log.info({ port: config.PORT, issuer: config.OIDC_ISSUER }, 'gateway is listening');

  onShutdown(log, 29_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'send streams elsewhere', run: () => draining.abort() },
    { name: 'finish requests', run: () => server.drain(20_000) },
    { name: 'store what was used', run: () => open.spending.flush() },
    { name: 'close models', run: () => open.models.close() },
    { name: 'record verdicts', run: () => open.verdicts.flush() },
    { name: 'close Kafka', run: () => open.kafka.close() },
    { name: 'stop fetching keys', run: () => open.issuer.stop() },
    { name: 'stop following the control feed', run: () => open.control.stop() },
    { name: 'stop looking for policies', run: () => open.policy.stop() },
    { name: 'close events', run: () => open.hub.stop() },
    { name: 'close Temporal', run: () => open.temporal.close() },
    { name: 'close Postgres', run: () => open.db.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
}

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}

main().catch((error: unknown) => {
  log.fatal(error instanceof ConfigError ? {} : { err: error }, messageOf(error));
  process.exit(1);
});
