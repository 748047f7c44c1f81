import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import {
  createGovernedApp,
  type GovernedServer,
  KafkaVerdictSink,
  PostgresQuota,
  serveGoverned,
  TokenVerifier,
} from '@somagent/governance';
import { ControlView, createLogger, KafkaProducer } from '@somagent/kit';
import { startTestPolicy } from '@somagent/policies/testing.ts';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createHandlers } from '../api/handlers.ts';
import { routes } from '../api/routes.ts';
import { Checkpointer } from '../checkpoint/checkpointer.ts';
import { CheckpointStore } from '../checkpoint/store.ts';
import { Witness } from '../checkpoint/witness.ts';
import { WitnessClient } from '../checkpoint/witness-client.ts';
import { WitnessState } from '../checkpoint/witness-state.ts';
import { AuditLog } from '../log/audit-log.ts';
import { EntryReader } from '../log/entries.ts';
import { leafOf } from '../log/leaf.ts';
import { StoredTree } from '../log/tree.ts';
import { startAuditDatabase, type TestAuditDatabase } from './database.ts';
import { makeKey } from './keys.ts';
import { startWitnessServer } from './witness-server.ts';

const issuer = 'https://login.test/realms/somagent';
const audience = 'somagent-gateway';
const origin = 'audit.example/log';
const quiet = createLogger({ service: 'audit-test', level: 'silent' });

/** The service over HTTPS with a real database, the real policy and a witness; tokens of people are signed here. */
export interface TestAuditService {
  readonly audit: TestAuditDatabase;
  readonly log: AuditLog;
  readonly checkpointer: Checkpointer;
  readonly verdicts: KafkaVerdictSink;
  readonly url: string;
  /** Authority of the service's certificate. */
  readonly caFile: string;
  token(claims: Readonly<Record<string, unknown>>): Promise<string>;
  stop(): Promise<void>;
}

/** Starts the service. Kafka is away, so that its own verdicts have to take the other way into the log. */
export async function startAuditService(): Promise<TestAuditService> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-audit-'));
  await writeFiles(folder);
  const [audit, policy] = await Promise.all([startAuditDatabase(), startTestPolicy(folder)]);
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
  const log = new AuditLog(audit.database);
  const signing = await startSigning(folder, audit);
  const producer = new KafkaProducer(
    { KAFKA_BROKERS: '127.0.0.1:1', KAFKA_CREDENTIALS_DIR: folder, KAFKA_CA_FILE: join(folder, 'ca.crt') },
    { clientId: 'audit' },
  );
  const verdicts = new KafkaVerdictSink({
    producer,
    log: quiet,
    patience: 50,
    pause: 60_000,
    spill: async (events) => void (await log.append(events.map(({ topic, value }) => leafOf(topic, value)))),
  });
  const app = createGovernedApp({
    service: 'audit',
    title: 'SomaGent audit',
    routes,
    handlers: createHandlers({ origin, entries: new EntryReader(audit.database), log, ...signing }),
    authentication: { tokens: new TokenVerifier({ keys, rules: { issuer, audience } }) },
    control: nothingStopped,
    policy,
    quota: new PostgresQuota({ database: audit.database, limits, log: quiet }),
    verdicts,
    relations: { check: () => Promise.reject(new Error('no relations here')) },
    log: quiet,
  });
  const server: GovernedServer = await serveGoverned({
    app,
    port: 0,
    host: '127.0.0.1',
    tlsDirectory: folder,
    log: quiet,
  });
  return {
    audit,
    log,
    verdicts,
    checkpointer: signing.checkpointer,
    url: `https://127.0.0.1:${server.port}`,
    caFile: join(folder, 'ca.crt'),
    token: (claims) =>
      new SignJWT({ azp: 'somagent-cli', typ: 'Bearer', ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'k1', typ: 'JWT' })
        .setIssuer(issuer)
        .setAudience(audience)
        .setIssuedAt()
        .setExpirationTime('5m')
        .sign(privateKey),
    stop: async () => {
      await server.drain(1000);
      await verdicts.flush();
      await producer.close();
      await signing.stop();
      await policy.stop();
      await audit.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const limits = [{ name: 'audit-subject', per: 'subject' as const, windowSeconds: 60, allowed: 10_000 }];

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

async function startSigning(folder: string, audit: TestAuditDatabase) {
  const [logKey, witnessKey] = [makeKey(origin, 'log'), makeKey('witness.example/w1', 'witness')];
  const state = join(folder, 'witness');
  await mkdir(state);
  const witness = new Witness({ origin, verifier: logKey.verifier }, witnessKey.signer, new WitnessState(state));
  const server = await startWitnessServer(witness);
  const [tree, checkpoints] = [new StoredTree(audit.database), new CheckpointStore(audit.database)];
  const client = new WitnessClient({ url: server.url, verifier: witnessKey.verifier, tree, fetch: server.fetch });
  const checkpointer = new Checkpointer({
    origin,
    signer: logKey.signer,
    tree,
    store: checkpoints,
    witness: client,
    log: quiet,
  });
  const keys = { log: logKey.verifier, witness: witnessKey.verifier };
  return { checkpointer, tree, checkpoints, keys, witness: client.name, stop: () => server.stop() };
}

async function writeFiles(folder: string): Promise<void> {
  const authority = await createAuthority('test authority of audit');
  const leaf = await issueCertificate(authority, {
    commonName: 'audit',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = {
    'tls.crt': leaf.certificate,
    'tls.key': leaf.key,
    'ca.crt': authority.certificate,
    username: 'audit',
    password: 'a password of this test only',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}
