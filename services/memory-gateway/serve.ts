import { setTimeout as sleep } from 'node:timers/promises';
import type { OutgoingEvent } from '@somagent/events';
import {
  IdentityApiKeys,
  KafkaVerdictSink,
  limitsOf,
  PostgresQuota,
  serveGoverned,
  userTokens,
} from '@somagent/governance';
import {
  appendEvents,
  ControlState,
  KafkaProducer,
  type Logger,
  OutboxRelay,
  onShutdown,
  startHealthServer,
  WorkloadVerifier,
} from '@somagent/kit';
import { createPolicyEngine } from '@somagent/policy';
import { relationCheckerOf } from '@somagent/relations/config.ts';
import { sql } from 'kysely';
import { createMemoryApp, quotaTables, service } from './app.ts';
import type { ServeConfig } from './config.ts';
import { memoryFacts } from './facts.ts';
import { Forgetter } from './forget.ts';
import { openIndex } from './index-parts.ts';
import { Indexer } from './indexer.ts';
import { Memories } from './memories.ts';
import { Summarizer } from './summarize.ts';
import { Sweeper } from './sweeper.ts';

/** What the service keeps open, besides the stores. */
function openGovernance(config: ServeConfig, { database }: ReturnType<typeof openIndex>, log: Logger) {
  const kafka = new KafkaProducer(config, { clientId: service });
  const store = (events: readonly OutgoingEvent[]) => appendEvents(database.untenanted, events);
  const identity = { url: config.IDENTITY_URL, caFile: config.IDENTITY_CA_FILE, tokenFile: config.IDENTITY_TOKEN_FILE };
  return {
    kafka,
    ...userTokens(config, log),
    apiKeys: new IdentityApiKeys({ ...identity, log }),
    workloads: new WorkloadVerifier({
      audience: config.WORKLOAD_AUDIENCE,
      callers: config.WORKLOAD_CALLERS,
      url: config.KUBERNETES_URL,
      directory: config.KUBERNETES_DIR,
      log,
    }),
    control: new ControlState({ ...identity, log }),
    policy: createPolicyEngine(config, { service, store, log }),
    relations: relationCheckerOf(config, { facts: memoryFacts(new Memories(database)) }),
    quota: new PostgresQuota({ database: quotaTables(database), limits: limitsOf(service, config), log }),
    verdicts: new KafkaVerdictSink({ producer: kafka, log, spill: store }),
    relay: new OutboxRelay({ database: config, sink: kafka, log }),
  };
}

/** What works beside the requests. */
function openWork(config: ServeConfig, { database, vectors, embeddings }: ReturnType<typeof openIndex>, log: Logger) {
  const indexer = new Indexer({ database, vectors, embeddings, log, nearDuplicate: config.NEAR_DUPLICATE });
  const forgetter = new Forgetter({ database, vectors, log });
  const sweeper = new Sweeper({ database, forgetter, log, interval: config.SWEEP_SECONDS * 1000 });
  const summarizer = new Summarizer({
    url: config.SLM_URL,
    model: config.SLM_MODEL,
    tokenFile: config.SLM_TOKEN_FILE,
    caFile: config.SLM_CA_FILE,
    maxTokens: config.SUMMARY_TOKENS,
    maxCharacters: config.SUMMARY_CHARACTERS,
  });
  return { indexer, sweeper, summarizer };
}

/** Serves the API, indexes and expires until the process is asked to end. */
export async function serve(config: ServeConfig, log: Logger): Promise<void> {
  const index = openIndex(config, log);
  const governance = openGovernance(config, index, log);
  const { issuer, tokens, apiKeys, workloads, control, policy, relations, quota, verdicts, relay, kafka } = governance;
  const { indexer, sweeper, summarizer } = openWork(config, index, log);
  const { database, vectors } = index;
  const app = createMemoryApp({
    ...index,
    authentication: { tokens, apiKeys, workloads },
    control,
    policy,
    relations,
    quota,
    verdicts,
    summarizer,
    wake: () => indexer.wake(),
    episodicDays: config.EPISODIC_DAYS,
    recallDeadlineMs: config.RECALL_DEADLINE_MS,
    log,
  });
  control.start();
  relay.start();
  await Promise.all([issuer.start(), workloads.start(), policy.start()]);
  indexer.start();
  sweeper.start();
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      // Vectors are no condition: without them recall goes on by words, and says so.
      postgres: async () => void (await sql`select 1 from memory limit 1`.execute(database.untenanted)),
      keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
      workloads: async () => ensure(workloads.known, `no keys of the cluster yet from ${config.KUBERNETES_URL}`),
      control: () => control.check(),
      policy: policy.check,
      relations: () => relations.ensureReady(),
      verdicts: async () => ensure(verdicts.accepting, 'verdicts can be recorded nowhere'),
    },
    documents: { '/routes': app.routes, '/memory': () => indexer.status },
  });
  const server = await serveGoverned({ app, port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  log.info({ port: server.port, model: config.EMBEDDINGS_MODEL }, 'the memory gateway is listening');

  onShutdown(log, 29_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'finish requests', run: () => server.drain(15_000) },
    { name: 'end the indexer', run: () => indexer.stop() },
    { name: 'end the sweeper', run: () => sweeper.stop() },
    { name: 'record verdicts', run: () => verdicts.flush() },
    { name: 'stop the relay', run: () => relay.stop() },
    { name: 'close Kafka', run: () => kafka.close() },
    { name: 'stop fetching keys', run: () => [issuer.stop(), workloads.stop()] },
    { name: 'stop following the control feed', run: () => control.stop() },
    { name: 'stop looking for policies', run: () => policy.stop() },
    { name: 'leave the vectors', run: () => vectors.close() },
    { name: 'close Postgres', run: () => database.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
}

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
