/** Everything that a governed request meets, as real servers of their own on loopback. */
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { startPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { startEventKafka } from '@somagent/events/testing.ts';
import { quotaMigration } from '@somagent/governance';
import { TestService } from '@somagent/identity/testing/service.ts';
import { createLogger, createPool, type KafkaConfig, outboxMigration, type PostgresConfig } from '@somagent/kit';
import { compileCorpus } from '@somagent/policies/bundle/corpus.ts';
import { folderShelf, publish } from '@somagent/policies/bundle/publish.ts';
import { ensureModel, objectOf, userOf } from '@somagent/relations';
import { startOpenFga } from '@somagent/relations/testing/openfga.ts';
import { exportJWK, generateKeyPair, type JSONWebKeySet, SignJWT } from 'jose';
import { Kysely, PostgresDialect } from 'kysely';

export const rules = { issuer: 'https://login.test/realms/somagent', audience: 'somagent-gateway' };

/** What the server processes are told; a file, since it has paths only. */
export interface ServerConfig {
  readonly tlsDirectory: string;
  readonly jwks: JSONWebKeySet;
  readonly policyFolder: string;
  readonly policyKeyFile: string;
  /** The same corpus, unpacked, for OPA's own server. */
  readonly policySources: string;
  readonly openfga: { readonly url: string; readonly tokenFile: string; readonly caFile: string };
  readonly identity: { readonly url: string; readonly caFile: string; readonly tokenFile: string };
  readonly postgres: PostgresConfig;
  readonly kafka: KafkaConfig;
}

/** The servers, the callers and their sessions. */
export interface World {
  readonly config: ServerConfig;
  readonly caFile: string;
  readonly tokens: readonly string[];
  /** Ids of sessions, one of each caller, in order. */
  readonly sessions: readonly string[];
  stop(): Promise<void>;
}

const callers = 20;

/** Starts Postgres, Kafka, OpenFGA, an API server with the identity service; takes about half a minute. */
export async function startWorld(): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-governed-'));
  const [postgres, kafka, openfga, identity] = await Promise.all([
    startPostgres(),
    startEventKafka(),
    startOpenFga(),
    TestService.start(),
  ]);
  const replica = await identity.replica();
  const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
  const subjects = Array.from({ length: callers }, (_, index) => `service-account-${index}`);
  const sessions = subjects.map(() => randomUUID());
  await relate(openfga, subjects, sessions);
  const config: ServerConfig = {
    tlsDirectory: await writeTls(folder),
    jwks: { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'RS256', use: 'sig' }] },
    ...(await writePolicy(folder)),
    openfga: { url: openfga.url, tokenFile: openfga.tokenFile, caFile: openfga.caFile },
    identity: { url: replica.url, caFile: identity.caFile, tokenFile: await identity.workloadFile('gateway') },
    postgres: await writeDatabase(postgres, folder),
    kafka: await kafka.variables('gateway'),
  };
  const sign = (subject: string) =>
    new SignJWT({ ...claims, sub: subject, sid: randomUUID(), jti: randomUUID() })
      .setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: 'JWT' })
      .setIssuer(rules.issuer)
      .setAudience([rules.audience, 'account'])
      .setIssuedAt()
      .setExpirationTime('1h')
      .sign(privateKey);
  return {
    config,
    caFile: join(folder, 'tls', 'ca.crt'),
    tokens: await Promise.all(subjects.map(sign)),
    sessions,
    stop: async () => {
      await Promise.all([identity.stop(), openfga.stop(), kafka.stop(), postgres.stop()]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** As Keycloak writes them: a token of the size that is usual there. */
const claims = {
  typ: 'Bearer',
  azp: 'acme-agent',
  acr: '1',
  scope: 'profile email',
  email_verified: false,
  clientHost: '10.244.0.17',
  preferred_username: 'service-account-acme-agent',
  clientAddress: '10.244.0.17',
  client_id: 'acme-agent',
  tenant: 'acme',
  roles: ['agent'],
  teams: ['blue'],
};

async function relate(
  openfga: Awaited<ReturnType<typeof startOpenFga>>,
  subjects: readonly string[],
  sessions: readonly string[],
): Promise<void> {
  const { store, model } = await ensureModel(openfga.client);
  for (const [index, subject] of subjects.entries()) {
    const user = userOf({ tenant: 'acme', subject });
    const object = objectOf('session', 'acme', sessions[index] ?? '');
    const facts = [
      { user, relation: 'member', object: 'tenant:acme' },
      { user: 'tenant:acme', relation: 'tenant', object },
      { user, relation: 'owner', object },
    ];
    await openfga.client.write(store, model, facts, []);
  }
}

async function writeTls(folder: string): Promise<string> {
  const authority = await createAuthority('authority of the benchmark');
  const leaf = await issueCertificate(authority, {
    commonName: 'gateway',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const directory = join(folder, 'tls');
  await mkdir(directory);
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate };
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text, { mode: 0o600 });
  return directory;
}

async function writePolicy(folder: string) {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const policyKeyFile = join(folder, 'policy.pem');
  const policyFolder = join(folder, 'policy');
  const policySources = join(folder, 'policy-sources');
  await writeFile(policyKeyFile, publicKey.export({ type: 'spki', format: 'pem' }));
  const compiled = compileCorpus();
  await publish(compiled, privateKey, folderShelf(policyFolder));
  for (const [name, content] of compiled) {
    if (!/\.(rego|json)$/.test(name) || name.startsWith('.')) continue;
    const file = join(policySources, name);
    await mkdir(join(file, '..'), { recursive: true });
    await writeFile(file, content);
  }
  return { policyKeyFile, policyFolder, policySources };
}

async function writeDatabase(
  postgres: Awaited<ReturnType<typeof startPostgres>>,
  folder: string,
): Promise<PostgresConfig> {
  const { server, caFile } = postgres;
  const admin = await postgres.connect('postgres');
  const password = randomUUID();
  await admin.query(`create role gateway login password '${password}'`);
  await admin.query('create database sessions owner gateway');
  await admin.end();
  const credentials = join(folder, 'postgres');
  await mkdir(credentials);
  await writeFile(join(credentials, 'username'), 'gateway');
  await writeFile(join(credentials, 'password'), password);
  const config: PostgresConfig = {
    PGHOST: server.host,
    PGPORT: server.port,
    PGDATABASE: 'sessions',
    PG_CREDENTIALS_DIR: credentials,
    PG_CA_FILE: caFile,
    PG_POOL_SIZE: 8,
  };
  const pool = createPool(config, createLogger({ service: 'bench', level: 'silent' }));
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
  await quotaMigration.up(db);
  await outboxMigration.up(db);
  await db.destroy();
  return config;
}
