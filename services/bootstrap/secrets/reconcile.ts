import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { z } from 'zod';
import { Failure } from '../failure.ts';
import { log } from '../log.ts';
import { createAuthority, isPastRenewal, issueCertificate, type KeyPair, reasonToRenew } from './certificates.ts';
import type { CertificateEntry, SecretEntry, SigningAlgorithm, secretsPlan } from './plan.ts';
import { createSigningKey, readSigningKey } from './signing-keys.ts';
import { Conflict, type SecretData, type SecretSpec, type SecretStore, type StoredSecret } from './store.ts';

type Plan = z.output<typeof secretsPlan>;

export interface Counts {
  created: number;
  updated: number;
  unchanged: number;
}

/** A value to store, and why a stored one is not kept. */
interface Desired {
  readonly data: SecretData;
  readonly reason: string | undefined;
}

/** Decides the value of a Secret from the one that is stored (undefined: none is stored anywhere). */
type Decide = (stored: SecretData | undefined) => Promise<Desired>;

const randomLength = 32;
const longestRace = 20;

function randomText(): string {
  return randomBytes(randomLength).toString('base64url');
}

/** Creates what is absent, completes what is partial and renews what ages. Two at once end with the same values. */
export async function reconcileSecrets(store: SecretStore, plan: Plan): Promise<Counts> {
  const counts: Counts = { created: 0, updated: 0, unchanged: 0 };
  const authority = await ensureAuthority(store, plan, counts);
  const made = new Map<string, SecretData>();
  for (const entry of inOrder(plan.secrets)) {
    const type = entry.kind === 'certificate' ? 'kubernetes.io/tls' : 'Opaque';
    const target = { ...entry, type, region: plan.region } as const;
    made.set(entry.name, await ensure(store, target, decider(entry, authority, made), counts));
  }
  return counts;
}

/** A public key is read off its signing key, so that comes first. */
function inOrder(secrets: readonly SecretEntry[]): SecretEntry[] {
  return [
    ...secrets.filter(({ kind }) => kind !== 'public-key'),
    ...secrets.filter(({ kind }) => kind === 'public-key'),
  ];
}

async function ensureAuthority(store: SecretStore, plan: Plan, counts: Counts): Promise<KeyPair> {
  const target = {
    name: plan.authority.name,
    namespaces: [plan.authority.namespace],
    type: 'kubernetes.io/tls' as const,
    region: plan.region,
  };
  const data = await ensure(store, target, (stored) => decideAuthority(plan, stored), counts);
  return { certificate: data['tls.crt'] ?? '', key: data['tls.key'] ?? '' };
}

async function decideAuthority(plan: Plan, stored: SecretData | undefined): Promise<Desired> {
  if (stored?.['tls.crt'] !== undefined && stored['tls.key'] !== undefined) {
    // Replacing an authority needs a period in which both are trusted: that is a drill of its own, not a Job's guess.
    if (isPastRenewal(stored['tls.crt']))
      log.warn('the authority is past two thirds of its life: plan its replacement');
    return { data: stored, reason: undefined };
  }
  const made = await createAuthority(`SomaGent region ${plan.region}`);
  return { data: { 'tls.crt': made.certificate, 'tls.key': made.key }, reason: 'incomplete' };
}

function decider(entry: SecretEntry, authority: KeyPair, made: ReadonlyMap<string, SecretData>): Decide {
  switch (entry.kind) {
    case 'authority-certificate':
      return async () => ({ data: { 'ca.crt': authority.certificate }, reason: 'the authority changed' });
    case 'password':
      return async (stored) => decidePassword(entry.username, stored);
    case 'token':
      return async (stored) => decideToken(stored);
    case 'certificate':
      return (stored) => decideCertificate(entry, authority, stored);
    case 'signing-key':
      return async (stored) => decideSigningKey(entry.algorithm, stored);
    case 'public-key':
      return async () => decidePublicKey(entry.of, made.get(entry.of)?.['public.pem']);
  }
}

function decidePassword(username: string, stored: SecretData | undefined): Desired {
  const password = stored?.password;
  const kept = password !== undefined && password !== '';
  return {
    data: { username, password: kept ? password : randomText() },
    reason: kept ? 'its user name is another' : 'empty',
  };
}

function decideToken(stored: SecretData | undefined): Desired {
  const token = stored?.token;
  return { data: { token: token === undefined || token === '' ? randomText() : token }, reason: 'empty' };
}

async function decideCertificate(
  entry: CertificateEntry,
  authority: KeyPair,
  stored: SecretData | undefined,
): Promise<Desired> {
  const pair = { certificate: stored?.['tls.crt'] ?? '', key: stored?.['tls.key'] ?? '' };
  const reason = stored === undefined ? undefined : reasonToRenew(pair, authority.certificate, entry);
  const kept = stored !== undefined && reason === undefined ? pair : await issueCertificate(authority, entry);
  return {
    data: { 'tls.crt': kept.certificate, 'tls.key': kept.key, 'ca.crt': authority.certificate },
    reason: reason ?? 'the authority changed',
  };
}

function decideSigningKey(algorithm: SigningAlgorithm, stored: SecretData | undefined): Desired {
  const pair = stored === undefined ? undefined : readSigningKey(algorithm, stored['private.pem'] ?? '');
  return {
    data: { ...(pair ?? createSigningKey(algorithm)) },
    reason: pair === undefined ? `not a private key for ${algorithm}` : 'its public half was another',
  };
}

function decidePublicKey(signingKey: string, publicKey: string | undefined): Desired {
  if (publicKey !== undefined) return { data: { 'public.pem': publicKey }, reason: 'the signing key changed' };
  throw new Failure(`the plan has no signing key ${signingKey}`, 'plan the signing key beside its public half');
}

interface Target {
  readonly name: string;
  readonly namespaces: readonly string[];
  readonly type: SecretSpec['type'];
  readonly region: string;
}

/** Brings one Secret to the same value in all its namespaces; begins again when another writer was faster. */
async function ensure(store: SecretStore, target: Target, decide: Decide, counts: Counts): Promise<SecretData> {
  for (let attempt = 1; attempt <= longestRace; attempt += 1) {
    try {
      return await ensureOnce(store, target, decide, counts);
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
      await sleep(20 * attempt * (1 + Math.random()));
    }
  }
  throw new Failure(
    `Secret ${target.name}: another writer changed it ${longestRace} times in a row`,
    'find who else writes this Secret: its managedFields name the writer',
  );
}

async function ensureOnce(store: SecretStore, target: Target, decide: Decide, counts: Counts): Promise<SecretData> {
  const copies = await Promise.all(target.namespaces.map((namespace) => store.read(namespace, target.name)));
  // The first stored copy is the truth, so that two Jobs, or one that was killed, complete the same value.
  const desired = await decide(copies.find((copy) => copy !== undefined)?.data);
  for (const [index, namespace] of target.namespaces.entries()) {
    await write(store, specOf(target, namespace, desired.data), copies[index], desired.reason, counts);
  }
  return desired.data;
}

async function write(
  store: SecretStore,
  spec: SecretSpec,
  stored: StoredSecret | undefined,
  reason: string | undefined,
  counts: Counts,
): Promise<void> {
  const object = { secret: spec.name, namespace: spec.namespace };
  if (stored === undefined) {
    await store.create(spec);
    counts.created += 1;
    log.info('secret created', object);
  } else if (sameData(stored.data, spec.data)) {
    counts.unchanged += 1;
  } else {
    await store.replace(spec, stored.resourceVersion);
    counts.updated += 1;
    log.info('secret updated', { ...object, reason });
  }
}

function specOf(target: Target, namespace: string, data: SecretData): SecretSpec {
  return { namespace, name: target.name, type: target.type, labels: labels(target), data };
}

function labels(target: Target): Record<string, string> {
  return {
    'app.kubernetes.io/name': target.name,
    'app.kubernetes.io/instance': `${target.region}-${target.name}`,
    'app.kubernetes.io/part-of': 'somagent',
    'app.kubernetes.io/managed-by': 'somagent',
    'somagent.dev/region': target.region,
  };
}

function sameData(left: SecretData, right: SecretData): boolean {
  const keys = Object.keys(left);
  return keys.length === Object.keys(right).length && keys.every((key) => left[key] === right[key]);
}
