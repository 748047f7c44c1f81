import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoreV1Api } from '@kubernetes/client-node';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { startApiServer, type TestApiServer } from '@somagent/bootstrap/testing/api-server.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import {
  type GovernedApp,
  type GovernedServer,
  serveGoverned,
  TokenVerifier,
  type VerdictRecord,
} from '@somagent/governance';
import { type ControlSnapshot, ControlView, WorkloadVerifier } from '@somagent/kit';
import { startTestPolicy } from '@somagent/policies/testing.ts';
import type { PolicyEngine } from '@somagent/policy';
import { ensureModel, type ModelLocation, RelationChecker, type Tuple } from '@somagent/relations';
import { startOpenFga, type TestOpenFga } from '@somagent/relations/testing/openfga.ts';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createMemoryApp } from '../app.ts';
import { memoryFacts } from '../facts.ts';
import { Indexer } from '../indexer.ts';
import { Memories } from '../memories.ts';
import type { Summarizer } from '../summarize.ts';
import { quiet, startMemoryDatabase, type TestMemoryDatabase } from './database.ts';
import { startTestStores, type TestStores } from './stores.ts';

const issuer = 'https://login.test/realms/somagent';
const audience = 'somagent-gateway';
const namespace = 'local-services';

const nothingStopped: ControlSnapshot = {
  revision: 1,
  halted: { all: false, tenants: [] },
  suspended: { tenants: [], users: [] },
  revoked: { sessions: [], tokens: [], keys: [] },
  training: { unlocked: [] },
};

/**
 * The service over HTTPS with a real database, engine, model, policy, OpenFGA and API server; tokens of people are
 * signed here.
 */
export interface TestMemoryService {
  readonly database: TestMemoryDatabase;
  readonly stores: TestStores;
  readonly indexer: Indexer;
  readonly openfga: TestOpenFga;
  readonly verdicts: VerdictRecord[];
  /** The policy that it asks: the real corpus. */
  readonly policy: PolicyEngine;
  readonly url: string;
  /** Authority of the service's certificate. */
  readonly caFile: string;
  /** Says what is halted and suspended from now on. */
  control(changed: Partial<ControlSnapshot>): void;
  /** Makes relations true. */
  relate(tuples: readonly Tuple[]): Promise<void>;
  token(claims: Readonly<Record<string, unknown>>): Promise<string>;
  /** A file with the token of a workload for this service, as the kubelet mounts it. */
  workloadFile(name: string): Promise<string>;
  stop(): Promise<void>;
}

/**
 * Starts everything.
 * @param summarizer the model that summarizes
 * @param planted what stands before the application: a fault that a test plants
 */
export async function startMemoryService(
  summarizer: Pick<Summarizer, 'summarize'>,
  planted: (healthy: GovernedApp['fetch']) => GovernedApp['fetch'] = (healthy) => healthy,
): Promise<TestMemoryService> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-memory-'));
  await writeCertificates(folder);
  const [database, stores, policy, openfga, api] = await Promise.all([
    startMemoryDatabase(),
    startTestStores(),
    startTestPolicy(folder),
    startOpenFga(),
    startApiServer(),
  ]);
  const location = await ensureModel(openfga.client);
  const cluster = await Cluster.prepare(api, folder);
  const people = await peopleOf();
  const { vectors, embeddings } = stores;
  const indexer = new Indexer({ database: database.database, vectors, embeddings, log: quiet });
  const verdicts: VerdictRecord[] = [];
  let view = new ControlView(nothingStopped);
  const control = {
    ready: true,
    halted: (tenant: string) => view.halted(tenant),
    suspended: (tenant: string, subject: string) => view.suspended(tenant, subject),
    revoked: (names: Parameters<ControlView['revoked']>[0]) => view.revoked(names),
    training: (tenant: string) => view.training(tenant),
  };
  const app = createMemoryApp({
    database: database.database,
    vectors,
    embeddings,
    summarizer,
    control,
    policy,
    relations: new RelationChecker({
      client: openfga.client,
      locate: async () => location,
      facts: memoryFacts(new Memories(database.database)),
      staleness: 0,
    }),
    authentication: { tokens: people.verifier, workloads: cluster.verifier },
    quota: { take: () => null },
    verdicts: { accepting: true, record: (verdict) => void verdicts.push(verdict) },
    wake: () => indexer.wake(),
    episodicDays: 180,
    recallDeadlineMs: 20_000,
    log: quiet,
  });
  const server: GovernedServer = await serveGoverned({
    app: { service: app.service, fetch: planted(app.fetch) },
    port: 0,
    host: '127.0.0.1',
    tlsDirectory: folder,
    log: quiet,
  });
  indexer.start();
  return {
    database,
    stores,
    indexer,
    openfga,
    verdicts,
    policy,
    url: `https://127.0.0.1:${server.port}`,
    caFile: join(folder, 'ca.crt'),
    control: (changed) => {
      view = new ControlView({ ...nothingStopped, ...changed });
    },
    relate: (tuples) => relate(openfga, location, tuples),
    token: people.token,
    workloadFile: (name) => cluster.workloadFile(name),
    stop: async () => {
      await server.drain(1000);
      await indexer.stop();
      await cluster.stop();
      await policy.stop();
      await Promise.all([openfga.stop(), stores.stop(), database.stop()]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function relate({ client }: TestOpenFga, { store, model }: ModelLocation, tuples: readonly Tuple[]) {
  await client.write(store, model, tuples, []);
}

async function peopleOf() {
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
  const token = (claims: Readonly<Record<string, unknown>>) =>
    new SignJWT({ azp: 'somagent-cli', typ: 'Bearer', ...claims })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', typ: 'JWT' })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime('30m')
      .sign(privateKey);
  return { token, verifier: new TokenVerifier({ keys, rules: { issuer, audience } }) };
}

/** Service accounts of a real API server. */
class Cluster {
  readonly verifier: WorkloadVerifier;
  readonly #api: TestApiServer;
  readonly #core: CoreV1Api;
  readonly #folder: string;

  private constructor(api: TestApiServer, core: CoreV1Api, folder: string) {
    this.#api = api;
    this.#core = core;
    this.#folder = folder;
    this.verifier = new WorkloadVerifier({
      audience: 'somagent-memory-gateway',
      callers: ['orchestrator', 'relations'].map((name) => `system:serviceaccount:${namespace}:${name}`),
      url: api.admin.getCurrentCluster()?.server ?? '',
      directory: join(folder, 'kubernetes'),
      log: quiet,
    });
  }

  static async prepare(api: TestApiServer, folder: string): Promise<Cluster> {
    const core = api.admin.makeApiClient(CoreV1Api);
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    for (const name of ['memory-gateway', 'orchestrator', 'relations', 'stranger']) {
      await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name } } });
    }
    const { status } = await core.createNamespacedServiceAccountToken({
      name: 'memory-gateway',
      namespace,
      body: { spec: { audiences: [], expirationSeconds: 3600 } },
    });
    await mkdir(join(folder, 'kubernetes'));
    await writeFile(join(folder, 'kubernetes/token'), status?.token ?? '');
    const authority = api.admin.getCurrentCluster()?.caData ?? '';
    await writeFile(join(folder, 'kubernetes/ca.crt'), Buffer.from(authority, 'base64'));
    const cluster = new Cluster(api, core, folder);
    await cluster.verifier.start();
    const dependency = { name: 'keys of the cluster', address: 'the API server', fix: 'read its log' };
    await waitFor(dependency, async () => requireKnown(cluster.verifier), { seconds: 60 });
    return cluster;
  }

  async workloadFile(name: string): Promise<string> {
    const spec = { audiences: ['somagent-memory-gateway'], expirationSeconds: 3600 };
    const { status } = await this.#core.createNamespacedServiceAccountToken({ name, namespace, body: { spec } });
    const file = join(this.#folder, `token-${name}`);
    await writeFile(file, status?.token ?? '');
    return file;
  }

  async stop(): Promise<void> {
    this.verifier.stop();
    await this.#api.stop();
  }
}

function requireKnown(verifier: WorkloadVerifier): void {
  if (!verifier.known) throw new Error('not known yet');
}

async function writeCertificates(folder: string): Promise<void> {
  const authority = await createAuthority('test authority of memory');
  const leaf = await issueCertificate(authority, {
    commonName: 'memory-gateway',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}
