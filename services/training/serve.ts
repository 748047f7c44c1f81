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
import { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { createPolicyEngine, type PolicyEngine } from '@somagent/policy';
import { sql } from 'kysely';
import { Approvals } from './approvals.ts';
import type { ServeConfig } from './config.ts';
import type { Database, Tables } from './database.ts';
import { createHandlers, type HandlerDependencies } from './handlers.ts';
import { LineageSigner } from './lineage.ts';
import { TrainingLock } from './lock.ts';
import { Models } from './models.ts';
import { Promotions } from './promotions.ts';
import { routes } from './routes.ts';
import { Runner } from './runner.ts';
import { Runs } from './runs.ts';
import { openSessions, type Sessions } from './sessions.ts';

const service = 'training';

/** No route here asks for a relation: roles decide. One that did would be refused. */
const noRelations: RelationChecker = {
  check: () => Promise.reject(new Error('the training service asks for no relations')),
};

/** Serves the API and runs what waits until the process is asked to end. */
export async function serve(config: ServeConfig, log: Logger): Promise<void> {
  const db: Database = new TenantDatabase<Tables>(createPool(config, log));
  const sessions = openSessions(createPool(sessionsOf(config), log));
  const identity = { url: config.IDENTITY_URL, caFile: config.IDENTITY_CA_FILE, tokenFile: config.IDENTITY_TOKEN_FILE };
  const control = new ControlState({ ...identity, log });
  const kafka = new KafkaProducer(config, { clientId: service });
  const relay = new OutboxRelay({ database: config, sink: kafka, log });
  const store = (events: readonly OutgoingEvent[]) => appendEvents(db.untenanted, events);
  const policy = createPolicyEngine(config, { service, store, log });
  const verdicts = new KafkaVerdictSink({ producer: kafka, spill: store, log });
  const { issuer, tokens } = userTokens(config, log);
  const { runner, ...parts } = partsOf(config, { db, sessions, control, policy, log });
  const app = createGovernedApp({
    service,
    title: 'SomaGent training',
    routes,
    handlers: createHandlers(parts),
    authentication: { tokens, apiKeys: new IdentityApiKeys({ ...identity, log }) },
    control,
    policy,
    quota: new PostgresQuota({
      database: { of: (tenant) => db.of(tenant).$pickTables<keyof QuotaTables>() },
      limits: limitsOf(service, config),
      log,
    }),
    verdicts,
    relations: noRelations,
    log,
  });
  control.start();
  relay.start();
  await Promise.all([issuer.start(), policy.start()]);
  const unready = control.onChange(() => runner.start());
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      postgres: async () => void (await sql`select 1`.execute(db.untenanted)),
      sessions: async () => void (await sql`select 1`.execute(sessions.untenanted)),
      keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
      control: () => control.check(),
      policy: policy.check,
      verdicts: async () => ensure(verdicts.accepting, 'verdicts can be recorded nowhere'),
    },
    documents: { '/routes': app.routes },
  });
  const server = await serveGoverned({ app, port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  log.info({ port: server.port }, 'training is listening');

  onShutdown(log, 44_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'take no more runs', run: () => unready() },
    { name: 'stop the run', run: () => runner.stop() },
    { name: 'finish requests', run: () => server.drain(5000) },
    { name: 'send verdicts', run: () => verdicts.flush() },
    { name: 'stop the relay', run: () => relay.stop() },
    { name: 'close Kafka', run: () => kafka.close() },
    { name: 'stop the policy', run: () => policy.stop() },
    { name: 'stop fetching keys', run: () => issuer.stop() },
    { name: 'stop following the control feed', run: () => control.stop() },
    { name: 'close Postgres', run: () => Promise.all([db.destroy(), sessions.destroy()]) },
    { name: 'close health', run: () => health.close() },
  ]);
}

/** What the parts of the service share. */
interface Shared {
  readonly db: Database;
  readonly sessions: Sessions;
  readonly control: ControlState;
  readonly policy: PolicyEngine;
  readonly log: Logger;
}

function partsOf(config: ServeConfig, { db, sessions, control, policy, log }: Shared) {
  const signer = new LineageSigner(config.LINEAGE_KEY_FILE);
  const bucket = new ObjectStoreBucket({
    url: config.OBJECT_STORE_URL,
    credentialsDir: config.OBJECT_STORE_CREDENTIALS_DIR,
    caFile: config.OBJECT_STORE_CA_FILE,
    // A model is megabytes.
    timeoutMs: 60_000,
  });
  const models = new Models({ bucket, signer, bundled: config.BUNDLED_MODEL });
  const runs = new Runs(db);
  const lock = new TrainingLock({ engine: policy, control });
  const runner = new Runner({
    ...{ db, sessions, runs, lock, models, signer, log },
    command: [config.TRAINING_PYTHON, '-m', 'finetune.submit'],
    env: {
      TRAINING_CORPUS: config.TRAINING_CORPUS,
      PYTHONUNBUFFERED: '1',
      PYTHONPATH: process.env.PYTHONPATH ?? '',
    },
    directory: config.TRAINING_DIR,
  });
  return {
    ...{ runs, lock, runner },
    approvals: new Approvals(db, sessions),
    promotions: new Promotions(db, runs, models),
    record: (verdict) => appendEvents(db.untenanted, [verdict]),
  } satisfies HandlerDependencies & { readonly runner: Runner };
}

/** The reader of the sessions, on the same server. */
const sessionsOf = (config: ServeConfig): ServeConfig => ({
  ...config,
  PGDATABASE: config.SESSIONS_DATABASE,
  PG_CREDENTIALS_DIR: config.SESSIONS_CREDENTIALS_DIR,
  PG_POOL_SIZE: 2,
});

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
