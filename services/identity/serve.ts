import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { IssuerKeys, serveGoverned, TokenVerifier } from '@somagent/governance';
import { PostgresQuota } from '@somagent/governance/quota.ts';
import type { QuotaTables } from '@somagent/governance/quota-migration.ts';
import { KafkaVerdictSink } from '@somagent/governance/verdict-sink.ts';
import {
  createPool,
  type Logger,
  onShutdown,
  startHealthServer,
  TenantDatabase,
  WorkloadVerifier,
  workloadToken,
} from '@somagent/kit';
import { KafkaProducer } from '@somagent/kit/kafka-producer.ts';
import { appendEvents, type OutboxEvent } from '@somagent/kit/outbox.ts';
import { OutboxRelay } from '@somagent/kit/outbox-relay.ts';
import { createPolicyEngine } from '@somagent/policy';
import { sql } from 'kysely';
import { Accounts } from './accounts.ts';
import { ApiKeys } from './api-keys.ts';
import { createIdentityApp } from './app.ts';
import type { ServeConfig } from './config.ts';
import { ControlFeed } from './control-feed.ts';
import type { Database, Tables } from './database.ts';
import { Directory } from './directory.ts';
import { Halts } from './halts.ts';
import type { HandlerDependencies } from './handlers.ts';
import { Keycloak } from './keycloak.ts';
import { Ledger } from './ledger.ts';
import { Maintenance } from './maintenance.ts';
import { Reconciliation } from './reconciliation.ts';
import { Revocations } from './revocations.ts';
import { Tenants } from './tenants.ts';
import { Training } from './training.ts';

/** Serves the API and the control feed until the process is asked to end. */
export async function serve(config: ServeConfig, log: Logger): Promise<void> {
  const db: Database = new TenantDatabase<Tables>(createPool(config, log));
  const feed = new ControlFeed({ db, postgres: config, log });
  const ledger = new Ledger(db, () => feed.refresh());
  const draining = new AbortController();
  const producer = new KafkaProducer(config, { clientId: 'identity' });
  const relay = new OutboxRelay({ database: config, sink: producer, log });
  const issuer = new IssuerKeys({ url: config.OIDC_JWKS_URL, caFile: config.OIDC_CA_FILE, log });
  const workloads = workloadsOf(config, log);
  const spill = (events: readonly OutboxEvent[]) => appendEvents(db.untenanted, events);
  const policy = createPolicyEngine(config, { service: 'identity', store: spill, log });
  const verdicts = new KafkaVerdictSink({ producer, spill, log });
  const parts = partsOf(config, db, ledger, log);
  const app = createIdentityApp({
    authentication: {
      tokens: new TokenVerifier({
        keys: issuer.keys,
        rules: { issuer: config.OIDC_ISSUER, audience: config.OIDC_AUDIENCE },
      }),
      workloads,
    },
    logout: { issuer: config.OIDC_ISSUER, clients: config.LOGOUT_CLIENTS, keys: issuer.keys },
    quota: new PostgresQuota({
      database: { of: (tenant) => db.of(tenant).$pickTables<keyof QuotaTables>() },
      limits: limitsOf(config),
      log,
    }),
    policy,
    verdicts,
    handlers: { ...parts, feed, draining: draining.signal },
    log,
  });
  const maintenance = new Maintenance({ db, log, ...parts });

  await Promise.all([issuer.start(), workloads.start(), feed.start(), policy.start()]);
  relay.start();
  maintenance.start();
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      postgres: async () => void (await sql`select revision from control`.execute(db.untenanted)),
      control: async () => ensure(feed.fresh, 'the control state is not confirmed by the database'),
      keys: async () => ensure(issuer.known, `no keys yet from ${config.OIDC_JWKS_URL}`),
      workloads: async () => ensure(workloads.known, `no keys of the cluster yet from ${config.KUBERNETES_URL}`),
      policy: policy.check,
    },
    documents: { '/routes': app.routes },
  });
  const server = await serveGoverned({ app, port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  log.info({ port: server.port, issuer: config.OIDC_ISSUER }, 'identity is listening');

  onShutdown(log, 29_000, [
    { name: 'stop being ready', run: () => health.drain() },
    // Until every node has heard that this pod is not an endpoint any more, new connections still come.
    { name: 'let the news spread', run: () => sleep(1500) },
    { name: 'send clients of the feed elsewhere', run: () => draining.abort() },
    { name: 'finish requests', run: () => server.drain(20_000) },
    { name: 'end maintenance', run: () => maintenance.stop() },
    { name: 'send verdicts', run: () => verdicts.flush() },
    { name: 'stop the relay', run: () => relay.stop() },
    { name: 'close Kafka', run: () => producer.close() },
    { name: 'stop the policy', run: () => policy.stop() },
    { name: 'stop fetching keys', run: () => [issuer.stop(), workloads.stop()] },
    { name: 'stop the feed', run: () => feed.stop() },
    { name: 'close Postgres', run: () => db.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
}

function workloadsOf(config: ServeConfig, log: Logger): WorkloadVerifier {
  return new WorkloadVerifier({
    audience: config.WORKLOAD_AUDIENCE,
    callers: config.WORKLOAD_CALLERS,
    url: config.KUBERNETES_URL,
    directory: config.KUBERNETES_DIR,
    log,
  });
}

type Parts = Omit<HandlerDependencies, 'feed' | 'draining'>;

function partsOf(config: ServeConfig, db: Database, ledger: Ledger, log: Logger): Parts {
  const keycloak = keycloakOf(config);
  const tenants = new Tenants(ledger, db);
  const accounts = new Accounts(ledger, db);
  return {
    keycloak,
    tenants,
    accounts,
    directory: new Directory(accounts, keycloak, log),
    keys: new ApiKeys(ledger, db),
    training: new Training(ledger, db),
    halts: new Halts(ledger),
    revocations: new Revocations(ledger, db),
    reconciliation: new Reconciliation({ ledger, tenants, accounts, keycloak, log }),
  };
}

function keycloakOf(config: ServeConfig): Keycloak {
  // The admin client takes no authority of its own.
  setDefaultCACertificates([...getCACertificates('default'), readFileSync(config.KEYCLOAK_CA_FILE, 'utf8')]);
  return new Keycloak({
    url: config.KEYCLOAK_URL,
    realm: config.KEYCLOAK_REALM,
    // RFC 7523: the subject of the token says which client it is.
    credentials: () => ({
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: workloadToken(config.KEYCLOAK_TOKEN_FILE),
    }),
    clientScopes: config.SERVICE_ACCOUNT_SCOPES,
  });
}

const limitsOf = ({ RATE_LIMIT_PER_MINUTE: allowed }: ServeConfig) => [
  { name: 'identity-subject', per: 'subject' as const, windowSeconds: 60, allowed },
];

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}
