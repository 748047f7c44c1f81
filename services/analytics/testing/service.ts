import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { startPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import {
  createGovernedApp,
  KafkaVerdictSink,
  PostgresQuota,
  type QuotaTables,
  serveGoverned,
  TokenVerifier,
} from '@somagent/governance';
import { appendEvents, ControlView, createPool, KafkaProducer, TenantDatabase } from '@somagent/kit';
import { startTestPolicy } from '@somagent/policies/testing.ts';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createHandlers } from '../api/handlers.ts';
import { Reports } from '../api/reports.ts';
import { routes } from '../api/routes.ts';
import { migrateAll } from '../migrate.ts';
import { Warehouse } from '../warehouse/warehouse.ts';
import { quiet, startWarehouse, type TestWarehouse } from './warehouse.ts';

const issuer = 'https://login.test/realms/somagent';
const audience = 'somagent-gateway';

/** The API over HTTPS on a real ClickHouse engine, Postgres and policy; tokens of people are signed here. */
export interface TestAnalytics {
  readonly store: TestWarehouse;
  readonly url: string;
  readonly caFile: string;
  token(claims: Readonly<Record<string, unknown>>): Promise<string>;
  stop(): Promise<void>;
}

/** Starts the service's API. Kafka is away, so that its verdicts have to wait in the outbox. */
export async function startAnalytics(): Promise<TestAnalytics> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-analytics-'));
  await writeFiles(folder);
  const [store, postgres, policy] = await Promise.all([
    startWarehouse({ migrated: false, fixedPort: true }),
    startDatabase(folder),
    startTestPolicy(folder),
  ]);
  await migrateAll({ ...postgres.config, ...store.variables() }, quiet);
  const database = new TenantDatabase<QuotaTables>(createPool(postgres.config, quiet));
  const reader = new Warehouse(store.variables('reader'));
  const producer = new KafkaProducer(
    { KAFKA_BROKERS: '127.0.0.1:1', KAFKA_CREDENTIALS_DIR: folder, KAFKA_CA_FILE: join(folder, 'ca.crt') },
    { clientId: 'analytics' },
  );
  const spill = (events: Parameters<typeof appendEvents>[1]) => appendEvents(database.untenanted, events);
  const verdicts = new KafkaVerdictSink({ producer, log: quiet, patience: 50, pause: 60_000, spill });
  const keys = await makeKeys();
  const app = createGovernedApp({
    service: 'analytics',
    title: 'SomaGent analytics',
    routes,
    handlers: createHandlers({ reports: new Reports(reader) }),
    authentication: { tokens: new TokenVerifier({ keys: keys.set, rules: { issuer, audience } }) },
    control: nothingStopped,
    policy,
    quota: new PostgresQuota({ database, limits, log: quiet }),
    verdicts,
    relations: { check: () => Promise.reject(new Error('no relations here')) },
    log: quiet,
  });
  const server = await serveGoverned({ app, port: 0, host: '127.0.0.1', tlsDirectory: folder, log: quiet });
  return {
    store,
    url: `https://127.0.0.1:${server.port}`,
    caFile: join(folder, 'ca.crt'),
    token: keys.token,
    stop: async () => {
      await server.drain(1000);
      await verdicts.flush();
      await producer.close();
      await Promise.all([policy.stop(), reader.close(), store.stop(), database.destroy()]);
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const limits = [{ name: 'analytics-subject', per: 'subject' as const, windowSeconds: 60, allowed: 10_000 }];

const nothingStopped = Object.assign(
  new ControlView({
    revision: 1,
    halted: { all: false, tenants: [] },
    suspended: { tenants: [], users: [] },
    revoked: { sessions: [], tokens: [], keys: [] },
    training: { unlocked: [] },
  }),
  { ready: true },
);

async function makeKeys() {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const set = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
  const token = (claims: Readonly<Record<string, unknown>>) =>
    new SignJWT({ azp: 'somagent-cli', typ: 'Bearer', ...claims })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', typ: 'JWT' })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(privateKey);
  return { set, token };
}

/** Postgres with the database `analytics` and its owner, whose credentials are in `folder`. */
async function startDatabase(folder: string) {
  const postgres = await startPostgres({ log_statement: 'none' });
  const admin = await postgres.connect('postgres');
  await admin.query(`create role analytics login password '${password}'`);
  await admin.query('create database analytics owner analytics');
  await admin.end();
  const config = {
    PGHOST: postgres.server.host,
    PGPORT: postgres.server.port,
    PGDATABASE: 'analytics',
    PG_CREDENTIALS_DIR: folder,
    PG_CA_FILE: postgres.caFile,
    PG_POOL_SIZE: 4,
  };
  return { config, stop: () => postgres.stop() };
}

const password = 'a password of this test only';

async function writeFiles(folder: string): Promise<void> {
  const authority = await createAuthority('test authority of analytics');
  const leaf = await issueCertificate(authority, {
    commonName: 'analytics',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = {
    'tls.crt': leaf.certificate,
    'tls.key': leaf.key,
    'ca.crt': authority.certificate,
    username: 'analytics',
    password,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}
