import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoreV1Api } from '@kubernetes/client-node';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { startApiServer, type TestApiServer } from '@somagent/bootstrap/testing/api-server.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { type GovernedServer, serveGoverned, TokenVerifier, type VerdictRecord } from '@somagent/governance';
import { WorkloadVerifier } from '@somagent/kit';
import { startTestPolicy } from '@somagent/policies/testing.ts';
import type { PolicyEngine } from '@somagent/policy';
import { createLocalJWKSet, exportJWK, generateKeyPair, type JWTVerifyGetKey, SignJWT } from 'jose';
import { Accounts } from '../accounts.ts';
import { ApiKeys } from '../api-keys.ts';
import { createIdentityApp } from '../app.ts';
import { ControlFeed } from '../control-feed.ts';
import { Directory } from '../directory.ts';
import { Halts } from '../halts.ts';
import { Keycloak, type KeycloakOptions } from '../keycloak.ts';
import { Ledger } from '../ledger.ts';
import { Reconciliation } from '../reconciliation.ts';
import { Revocations } from '../revocations.ts';
import { Tenants } from '../tenants.ts';
import { Training } from '../training.ts';
import { quiet, startIdentityDatabase, type TestIdentityDatabase } from './database.ts';

/** The issuer of the tokens of people in a test. */
export const issuer = 'https://login.test/realms/somagent';
const audience = 'somagent-gateway';
const namespace = 'local-services';

/** One replica of the service, over HTTPS on loopback. */
export interface Replica {
  readonly url: string;
  readonly feed: ControlFeed;
  readonly reconciliation: Reconciliation;
  stop(): Promise<void>;
}

/** An answer of the service. */
export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
  readonly body: any;
}

/** The service with a real database, real policy, real tokens of workloads; the tokens of people are signed here. */
export class TestService {
  readonly database: TestIdentityDatabase;
  readonly verdicts: VerdictRecord[] = [];
  /** Authority of the service's certificate. */
  readonly caFile: string;
  readonly #folder: string;
  readonly #api: TestApiServer;
  readonly #core: CoreV1Api;
  readonly #policy: PolicyEngine;
  readonly #keys: JWTVerifyGetKey;
  readonly #sign: (token: SignJWT, typ: string) => Promise<string>;
  readonly #replicas: Replica[] = [];

  private constructor(parts: {
    readonly database: TestIdentityDatabase;
    readonly folder: string;
    readonly api: TestApiServer;
    readonly policy: PolicyEngine;
    readonly keys: JWTVerifyGetKey;
    readonly sign: (token: SignJWT, typ: string) => Promise<string>;
  }) {
    this.database = parts.database;
    this.caFile = join(parts.folder, 'ca.crt');
    this.#folder = parts.folder;
    this.#api = parts.api;
    this.#core = parts.api.admin.makeApiClient(CoreV1Api);
    this.#policy = parts.policy;
    this.#keys = parts.keys;
    this.#sign = parts.sign;
  }

  static async start(): Promise<TestService> {
    const folder = await mkdtemp(join(tmpdir(), 'somagent-identity-'));
    const [database, api, policy] = await Promise.all([
      startIdentityDatabase(),
      startApiServer(),
      startTestPolicy(folder),
    ]);
    await writeCertificates(folder);
    const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
    const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
    const sign = (token: SignJWT, typ: string) =>
      token.setProtectedHeader({ alg: 'ES256', kid: 'k1', typ }).sign(privateKey);
    const service = new TestService({ database, folder, api, policy, keys, sign });
    await service.#createAccounts();
    return service;
  }

  /** Starts a replica. @param keycloak how it reaches Keycloak; by default nobody answers there */
  async replica(keycloak: KeycloakOptions = nobody, workloadKeys = true): Promise<Replica> {
    const { database } = this;
    const feed = new ControlFeed({ db: database.database, postgres: database.config, log: quiet });
    const ledger = new Ledger(database.database, () => feed.refresh());
    const workloads = this.#verifier();
    await Promise.all([feed.start(), workloads.start()]);
    if (workloadKeys) await known(workloads);
    const draining = new AbortController();
    const client = new Keycloak(keycloak);
    const tenants = new Tenants(ledger, database.database);
    const accounts = new Accounts(ledger, database.database);
    const reconciliation = new Reconciliation({ ledger, tenants, accounts, keycloak: client, log: quiet });
    const app = createIdentityApp({
      authentication: { tokens: new TokenVerifier({ keys: this.#keys, rules: { issuer, audience } }), workloads },
      logout: { issuer, clients: ['somagent-cli'], keys: this.#keys },
      quota: { take: () => null },
      policy: this.#policy,
      verdicts: { accepting: true, record: (verdict) => void this.verdicts.push(verdict) },
      handlers: {
        tenants,
        accounts,
        reconciliation,
        feed,
        keycloak: client,
        directory: new Directory(accounts, client, quiet),
        keys: new ApiKeys(ledger, database.database),
        training: new Training(ledger, database.database),
        halts: new Halts(ledger),
        revocations: new Revocations(ledger, database.database),
        draining: draining.signal,
      },
      log: quiet,
    });
    const server: GovernedServer = await serveGoverned({
      app,
      port: 0,
      host: '127.0.0.1',
      tlsDirectory: this.#folder,
      log: quiet,
    });
    const stop = async () => {
      draining.abort();
      await server.drain(1000);
      workloads.stop();
      await feed.stop();
    };
    const replica = { url: `https://127.0.0.1:${server.port}`, feed, reconciliation, stop };
    this.#replicas.push(replica);
    return replica;
  }

  /** The policy that it asks: the real corpus. */
  get policy(): PolicyEngine {
    return this.#policy;
  }

  /** The keys that verify {@link token}. */
  get keys(): JWTVerifyGetKey {
    return this.#keys;
  }

  /** A token of a person or service account. */
  token(claims: { readonly sub: string } & Readonly<Record<string, unknown>>): Promise<string> {
    const token = new SignJWT({ azp: 'somagent-cli', typ: 'Bearer', ...claims })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime('5m');
    return this.#sign(token, 'JWT');
  }

  /** Signs any claims with the key of the issuer. */
  signed(token: SignJWT, typ: string): Promise<string> {
    return this.#sign(token, typ);
  }

  /** A file with a token of a workload for this service, as the kubelet mounts it. */
  async workloadFile(name: string, forAudience = 'somagent-identity'): Promise<string> {
    const spec = { audiences: [forAudience], expirationSeconds: 600 };
    const { status } = await this.#core.createNamespacedServiceAccountToken({ name, namespace, body: { spec } });
    const file = join(this.#folder, `token-${name}-${forAudience}`);
    await writeFile(file, status?.token ?? '');
    return file;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#replicas.map((replica) => replica.stop()));
    await this.#policy.stop();
    await this.#api.stop();
    await this.database.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #createAccounts(): Promise<void> {
    await this.#core.createNamespace({ body: { metadata: { name: namespace } } });
    for (const name of ['identity', 'gateway', 'orchestrator', 'relations', 'stranger']) {
      await this.#core.createNamespacedServiceAccount({ namespace, body: { metadata: { name } } });
    }
    const cluster = this.#api.admin.getCurrentCluster();
    const { status } = await this.#core.createNamespacedServiceAccountToken({
      name: 'identity',
      namespace,
      body: { spec: { audiences: [], expirationSeconds: 600 } },
    });
    const directory = join(this.#folder, 'kubernetes');
    await mkdir(directory);
    await writeFile(join(directory, 'token'), status?.token ?? '');
    await writeFile(join(directory, 'ca.crt'), Buffer.from(cluster?.caData ?? '', 'base64'));
  }

  #verifier(): WorkloadVerifier {
    return new WorkloadVerifier({
      audience: 'somagent-identity',
      callers: ['gateway', 'orchestrator', 'relations'].map((name) => `system:serviceaccount:${namespace}:${name}`),
      url: this.#api.admin.getCurrentCluster()?.server ?? '',
      directory: join(this.#folder, 'kubernetes'),
      log: quiet,
    });
  }
}

const nobody: KeycloakOptions = {
  url: 'https://127.0.0.1:1',
  realm: 'somagent',
  credentials: () => ({ client_id: 'somagent-identity', client_secret: 'none' }),
  clientScopes: [],
};

/** The server makes the role that shows its keys shortly after it is ready. */
function known(workloads: WorkloadVerifier): Promise<void> {
  const dependency = { name: 'keys of the cluster', address: 'the API server', fix: 'read its log' };
  return waitFor(
    dependency,
    async () => {
      if (!workloads.known) throw new Error('not known yet');
    },
    { seconds: 20 },
  );
}

async function writeCertificates(folder: string): Promise<void> {
  const authority = await createAuthority('test authority of identity');
  const leaf = await issueCertificate(authority, {
    commonName: 'identity',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}
