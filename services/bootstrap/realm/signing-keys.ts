import type ComponentRepresentation from '@keycloak/keycloak-admin-client/lib/defs/componentRepresentation.js';
import type { RealmRun } from './apply.ts';

const keyProvider = 'org.keycloak.keys.KeyProvider';
/** Keycloak's provider that makes an RSA key for signatures by itself; the private key never leaves its database. */
const generated = 'rsa-generated';
const prefix = 'signing-';
/** Beyond the life of the last token: clocks differ, and a request may be under way. */
const marginSeconds = 120;

/** What a signing key is for at the moment. */
export type KeyState = 'published' | 'active' | 'passive';

/** A signing key of the realm. */
export interface SigningKey {
  readonly id: string;
  readonly name: string;
  readonly state: KeyState;
  /** Seconds since 1970; 0 for a key that Keycloak made itself when the realm was created. */
  readonly createdAt: number;
  /** When it began to sign; 0 for one that has not, or that Keycloak made itself. */
  readonly activatedAt: number;
}

/** Times of a rotation, all in seconds. */
export interface RotationRules {
  /** Age at which the active key is replaced. */
  readonly replaceAfter: number;
  /** How long a key is public before it signs. */
  readonly publish: number;
  /** How long a key stays public after it has signed last. */
  readonly retire: number;
}

/** What one run does. */
export type RotationStep =
  | { readonly action: 'create' }
  | { readonly action: 'activate'; readonly key: SigningKey }
  | { readonly action: 'retire'; readonly key: SigningKey }
  | { readonly action: 'remove'; readonly key: SigningKey };

/** Whether a rotation begins when it is due, or at once. */
export type RotationWish = 'due' | 'now';

/**
 * The next steps of a rotation. A key is first published, so that everybody knows it before it signs; then it is
 * active and the one before it passive; and when the last token of a passive key has ended, the key is removed.
 * @param now seconds since 1970
 */
export function rotationSteps(
  keys: readonly SigningKey[],
  rules: RotationRules,
  now: number,
  wish: RotationWish = 'due',
): RotationStep[] {
  const active = keys.filter(({ state }) => state === 'active').toSorted((a, b) => b.activatedAt - a.activatedAt);
  const next = keys.filter(({ state }) => state === 'published').toSorted((a, b) => a.createdAt - b.createdAt)[0];
  const current = active[0];
  const isDue = current === undefined || wish === 'now' || now - current.createdAt >= rules.replaceAfter;
  const begin: RotationStep[] = next === undefined && isDue ? [{ action: 'create' }] : [];
  const ready = next !== undefined && (current === undefined || now - next.createdAt >= rules.publish);
  const turn: RotationStep[] = ready
    ? [{ action: 'activate', key: next }, ...active.map((key): RotationStep => ({ action: 'retire', key }))]
    : active.slice(1).map((key) => ({ action: 'retire', key }));
  const old = keys.filter((key) => key.state === 'passive' && now - endOf(key, keys) >= rules.retire);
  return [...begin, ...turn, ...old.map((key): RotationStep => ({ action: 'remove', key }))];
}

/** When a passive key signed last: its successor began then. */
function endOf(key: SigningKey, keys: readonly SigningKey[]): number {
  const later = keys.map(({ activatedAt }) => activatedAt).filter((time) => time > key.activatedAt);
  return later.length === 0 ? Number.POSITIVE_INFINITY : Math.min(...later);
}

/** What a component of Keycloak says about the key that it holds. Priority is the second at which it began to sign. */
export function signingKeyOf({ id = '', name = '', config = {} }: ComponentRepresentation): SigningKey {
  const ours = name.startsWith(prefix);
  const createdAt = ours ? Number(name.slice(prefix.length)) : 0;
  const activatedAt = ours ? Number(first(config.priority)) : 0;
  const isActive = first(config.active) !== 'false';
  return {
    id,
    name,
    createdAt,
    activatedAt,
    state: isActive ? 'active' : activatedAt > 0 || !ours ? 'passive' : 'published',
  };
}

const first = (value: unknown): string => String(Array.isArray(value) ? (value[0] ?? '') : (value ?? ''));

/** The rotation rules of a realm: a key outlives the longest token that it may have signed. */
export function rotationRules({ realm }: Pick<RealmRun, 'realm'>): RotationRules {
  const lives = [realm.accessTokenSeconds, ...realm.clients.map(({ accessTokenSeconds = 0 }) => accessTokenSeconds)];
  const { days, publishSeconds } = realm.signingKeys;
  return { replaceAfter: days * 86_400, publish: publishSeconds, retire: Math.max(...lives) + marginSeconds };
}

/** Brings the signing keys of the realm one step on. Safe to repeat and to kill: the state is in Keycloak alone. */
export async function rotateSigningKeys(
  run: RealmRun,
  wish: RotationWish,
  now: number,
  rules = rotationRules(run),
): Promise<void> {
  const stored = await signingComponents(run);
  for (const step of rotationSteps(stored.map(signingKeyOf), rules, now, wish)) {
    const component = step.action === 'create' ? undefined : stored.find(({ id }) => id === step.key.id);
    await perform(run, step, component, now);
  }
}

async function signingComponents({ admin, realm }: RealmRun): Promise<ComponentRepresentation[]> {
  const stored = await admin.components.find({ realm: realm.name, type: keyProvider });
  return stored.filter(({ providerId }) => providerId === generated);
}

/** The new key begins before the old one ends: at every moment there is one that signs. */
async function perform(
  run: RealmRun,
  step: RotationStep,
  stored: ComponentRepresentation | undefined,
  now: number,
): Promise<void> {
  const { admin, changes } = run;
  const realm = run.realm.name;
  const kind = 'signing key';
  if (step.action === 'create') {
    const wish = newKey(now);
    await changes.make({ action: 'create', kind, name: wish.name, fields: [] }, () =>
      admin.components.create({ realm, ...wish }),
    );
    return;
  }
  const { id, name } = step.key;
  if (step.action === 'remove') {
    await changes.make({ action: 'remove', kind, name, fields: [] }, () => admin.components.del({ realm, id }));
    return;
  }
  const active = step.action === 'activate';
  const config = { ...stored?.config, active: [String(active)], ...(active && { priority: [String(now)] }) };
  const fields = [{ field: 'state', before: step.key.state, after: active ? 'active' : 'passive' }];
  await changes.make({ action: 'update', kind, name, fields }, () =>
    admin.components.update({ realm, id }, { ...stored, config }),
  );
}

const newKey = (now: number) => ({
  name: `${prefix}${now}`,
  providerType: keyProvider,
  providerId: generated,
  // No priority yet: it does not sign, it is only published.
  config: { enabled: ['true'], active: ['false'], priority: ['0'], algorithm: ['RS256'], keySize: ['2048'] },
});
