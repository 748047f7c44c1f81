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
  ControlState,
  createPool,
  fetchTrusting,
  KafkaProducer,
  type Logger,
  onShutdown,
  startHealthServer,
  TenantDatabase,
} from '@somagent/kit';
import { createPolicyEngine } from '@somagent/policy';
import { createHandlers } from './api/handlers.ts';
import { routes } from './api/routes.ts';
import { Checkpointer } from './checkpoint/checkpointer.ts';
import { readSigner, readVerifier } from './checkpoint/keys.ts';
import { verifierKey } from './checkpoint/note.ts';
import { CheckpointStore } from './checkpoint/store.ts';
import { WitnessClient } from './checkpoint/witness-client.ts';
import type { ServeConfig } from './config.ts';
import { AuditConsumer } from './consumer/consumer.ts';
import { AuditLog } from './log/audit-log.ts';
import type { Database } from './log/database.ts';
import { EntryReader } from './log/entries.ts';
import { leafOf } from './log/leaf.ts';
import { StoredTree } from './log/tree.ts';

const service = 'audit';

/** The log and what makes it trustworthy. */
function openLog(config: ServeConfig, log: Logger) {
  const db = new TenantDatabase<Database>(createPool(config, log));
  const origin = config.LOG_ORIGIN;
  const signer = readSigner(origin, 'log', config.LOG_KEY_FILE);
  const verifier = readVerifier(config.WITNESS_NAME, 'witness', config.WITNESS_PUBLIC_KEY_FILE);
  const [auditLog, tree, store] = [new AuditLog(db), new StoredTree(db), new CheckpointStore(db)];
  const fetch = fetchTrusting(config.WITNESS_CA_FILE);
  const witness = new WitnessClient({ url: config.WITNESS_URL, verifier, tree, fetch });
  return {
    db,
    auditLog,
    tree,
    store,
    checkpointer: new Checkpointer({ origin, signer, tree, store, witness, log }),
    consumer: new AuditConsumer({ kafka: config, auditLog, log }),
    keys: { log: signer, witness: verifier },
  };
}

/** What governs requests. */
function openGovernance(config: ServeConfig, { db, auditLog }: ReturnType<typeof openLog>, log: Logger) {
  const kafka = new KafkaProducer(config, { clientId: service });
  // What Kafka does not take goes where it would end anyway.
  const append = async (events: readonly OutgoingEvent[]) =>
    void (await auditLog.append(events.map(({ topic, value }) => leafOf(topic, value))));
  const identity = { url: config.IDENTITY_URL, caFile: config.IDENTITY_CA_FILE, tokenFile: config.IDENTITY_TOKEN_FILE };
  return {
    kafka,
    ...userTokens(config, log),
    apiKeys: new IdentityApiKeys({ ...identity, log }),
    control: new ControlState({ ...identity, log }),
    policy: createPolicyEngine(config, { service, store: append, log }),
    quota: new PostgresQuota({
      database: { of: (tenant) => db.of(tenant).$pickTables<keyof QuotaTables>() },
      limits: limitsOf(service, config),
      log,
    }),
    verdicts: new KafkaVerdictSink({ producer: kafka, log, spill: append }),
  };
}

/** No route here asks for a relation: roles decide. One that did would be refused. */
const noRelations: RelationChecker = {
  check: () => Promise.reject(new Error('the audit service asks for no relations')),
};

/** Serves the API and consumes events until the process is asked to end. */
export async function serve(config: ServeConfig, log: Logger): Promise<void> {
  const open = openLog(config, log);
  const governance = openGovernance(config, open, log);
  const { issuer, control, policy, quota, verdicts, tokens, apiKeys, kafka } = governance;
  const { db, auditLog, tree, store, checkpointer, consumer, keys } = open;
  const app = createGovernedApp({
    service,
    title: 'SomaGent audit',
    routes,
    handlers: createHandlers({
      origin: config.LOG_ORIGIN,
      witness: config.WITNESS_NAME,
      entries: new EntryReader(db),
      checkpoints: store,
      log: auditLog,
      tree,
      keys,
    }),
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
  consumer.start();
  checkpointer.start();
  const state = () => ({ ...checkpointer.state, missed: consumer.missed });
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      postgres: async () => void (await tree.size()),
      kafka: async () => ensure(consumer.joined, 'does not read from Kafka'),
      keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
      control: () => control.check(),
      policy: policy.check,
      verdicts: async () => ensure(verdicts.accepting, 'verdicts can be recorded nowhere'),
    },
    documents: { '/routes': app.routes, '/audit': state },
  });
  const server = await serveGoverned({ app, port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  log.info({ port: server.port, log: verifierKey(keys.log), witness: verifierKey(keys.witness) }, 'audit is listening');

  onShutdown(log, 29_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'finish requests', run: () => server.drain(20_000) },
    { name: 'stop consuming', run: () => consumer.stop() },
    { name: 'record verdicts', run: () => verdicts.flush() },
    { name: 'close Kafka', run: () => kafka.close() },
    { name: 'stop signing', run: () => checkpointer.stop() },
    { name: 'stop fetching keys', run: () => issuer.stop() },
    { name: 'stop following the control feed', run: () => control.stop() },
    { name: 'stop looking for policies', run: () => policy.stop() },
    { name: 'close Postgres', run: () => db.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
}

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
