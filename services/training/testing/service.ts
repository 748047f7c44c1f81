import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createGovernedApp, TokenVerifier } from '@somagent/governance';
import { TestService } from '@somagent/identity/testing/service.ts';
import { appendEvents, ControlState, fetchTrusting } from '@somagent/kit';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { Approvals } from '../approvals.ts';
import { createHandlers } from '../handlers.ts';
import { TrainingLock } from '../lock.ts';
import { Models } from '../models.ts';
import { Promotions } from '../promotions.ts';
import { routes } from '../routes.ts';
import { Runner } from '../runner.ts';
import { Runs } from '../runs.ts';
import { quiet, startPlatform, type TestPlatform } from './platform.ts';

const issuer = 'https://login.test/realms/somagent';
const audience = 'somagent-gateway';
const root = fileURLToPath(new URL('../../..', import.meta.url));

/** People of the tests. */
export const people = {
  anna: { sub: 'anna', tenant: 'acme', roles: ['tenant-admin'], preferred_username: 'anna' },
  ben: { sub: 'ben', tenant: 'acme', roles: ['tenant-admin'], preferred_username: 'ben' },
  mary: { sub: 'mary', tenant: 'acme', roles: ['member'], preferred_username: 'mary' },
  robot: { sub: 'rob', tenant: 'acme', roles: ['tenant-admin'], preferred_username: 'service-account-acme-rob' },
  gina: { sub: 'gina', tenant: 'globex', roles: ['tenant-admin'], preferred_username: 'gina' },
  hugo: { sub: 'hugo', tenant: 'globex', roles: ['tenant-admin'], preferred_username: 'hugo' },
} as const;

/** Who asks. */
export type Person = keyof typeof people;

/** An answer of the service. */
export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
  readonly body: any;
}

/** The service on real databases, object store and policy, and beside it the real identity service with its lock. */
export interface TestTraining {
  readonly platform: TestPlatform;
  readonly runs: Runs;
  readonly runner: Runner;
  readonly models: Models;
  ask(who: Person, method: string, path: string, body?: unknown): Promise<Answer>;
  /** Two people of the tenant unlock training, at the identity service. */
  unlock(first: Person, second: Person): Promise<void>;
  lock(who: Person): Promise<void>;
  stop(): Promise<void>;
}

/** The model that serves first: built from the repository, or taken from the cache. */
function bundledModel(file: string): string {
  execFileSync('sh', [`${root}services/slm/build-model.sh`, file], { stdio: 'ignore' });
  return file;
}

/** Python with Ray and JAX: the packages that serve beside those that train. */
function python() {
  const venv = (name: string, ...files: readonly string[]) =>
    execFileSync('sh', ['scripts/venv.sh', name, ...files], { cwd: `${root}services/slm`, encoding: 'utf8' }).trim();
  const train = venv('slm-train-venv', 'requirements-train.txt');
  const serve = venv('slm-serve-venv', 'requirements-serve.txt', 'requirements-test.txt');
  const packages = `${serve}/lib/python3.11/site-packages`;
  return {
    program: `${train}/bin/python`,
    path: `${root}services/training:${root}services/slm:${packages}`,
  };
}

/** Ray binds more than the loopback, so it gets a network of its own. */
const apart = ['unshare', '--map-root-user', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh'];

/** Starts everything; the runner only once it is told to. */
export async function startTraining(): Promise<TestTraining> {
  const identity = await TestService.start();
  const platform = await startPlatform();
  const replica = await identity.replica();
  for (const tenant of ['acme', 'globex']) {
    const row = { tenant, display_name: tenant };
    await identity.database.database.of(tenant).insertInto('tenant').values(row).execute();
  }
  const tokenFile = await identity.workloadFile('gateway');
  const control = new ControlState({ url: replica.url, caFile: identity.caFile, tokenFile, log: quiet });
  control.start();
  await new Promise<void>((resolve) => control.onChange(() => resolve()));
  const { db, sessions, bucket, signer, folder } = platform;
  const { program, path } = python();
  const lock = new TrainingLock({ engine: identity.policy, control, interval: 200 });
  const runs = new Runs(db);
  const models = new Models({ bucket, signer, bundled: bundledModel(`${folder}/bundled.gguf`) });
  const runner = new Runner({
    ...{ db, sessions, runs, lock, models, signer, log: quiet, interval: 100 },
    command: [...apart, program, '-m', 'finetune.submit'],
    env: { TRAINING_CORPUS: `${root}services/slm/corpus`, PYTHONPATH: path, PYTHONDONTWRITEBYTECODE: '1' },
    directory: folder,
  });
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
  const app = createGovernedApp({
    service: 'training',
    title: 'SomaGent training',
    routes,
    handlers: createHandlers({
      ...{ runs, lock },
      approvals: new Approvals(db, sessions),
      promotions: new Promotions(db, runs, models),
      record: (verdict) => appendEvents(db.untenanted, [verdict]),
    }),
    authentication: { tokens: new TokenVerifier({ keys, rules: { issuer, audience } }) },
    control,
    policy: identity.policy,
    quota: { take: () => null },
    verdicts: { accepting: true, record: () => undefined },
    relations: { check: () => Promise.reject(new Error('no relations here')) },
    log: quiet,
  });
  const sign = (who: Person) =>
    new SignJWT({ azp: 'somagent-cli', typ: 'Bearer', ...people[who] })
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', typ: 'JWT' })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(privateKey);
  const trusting = fetchTrusting(identity.caFile);
  const atIdentity = async (who: Person, path: string, body: unknown) => {
    const response = await trusting(`${replica.url}/v1/tenants/${people[who].tenant}/training${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${await identity.token(people[who])}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`identity answered ${response.status}: ${await response.text()}`);
    return (await response.json()) as { readonly id: string };
  };
  const until = async (who: Person, state: 'locked' | 'unlocked') => {
    while (control.training(people[who].tenant) !== state) await new Promise((done) => setTimeout(done, 10));
  };
  return {
    ...{ platform, runs, runner, models },
    ask: async (who, method, path, body) => {
      const headers = { authorization: `Bearer ${await sign(who)}`, 'content-type': 'application/json' };
      const init = { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) };
      const response = await app.fetch(new Request(`https://training.test${path}`, init));
      return { status: response.status, body: await response.json() };
    },
    unlock: async (first, second) => {
      const { id } = await atIdentity(first, '/proposals', { reason: 'of this test' });
      await atIdentity(second, `/proposals/${id}/approve`, {});
      await until(first, 'unlocked');
    },
    lock: async (who) => {
      await atIdentity(who, '/lock', { reason: 'of this test' });
      await until(who, 'locked');
    },
    stop: async () => {
      await runner.stop();
      await control.stop();
      await identity.stop();
      await platform.stop();
    },
  };
}
