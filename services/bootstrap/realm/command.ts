import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import { z } from 'zod';
import { codeOf } from '../failure.ts';
import { log } from '../log.ts';
import { type ResolvedRealm, realmSchema } from '../realm-types.ts';
import {
  type Credentials,
  type Environment,
  readCredentials,
  readJson,
  readPem,
  readSettings,
  waitSettings,
} from '../settings.ts';
import { waitFor } from '../wait.ts';
import { applyRealm, type RealmInputs, type RealmRun } from './apply.ts';
import { type Change, RealmChanges } from './changes.ts';
import { rotateSigningKeys } from './signing-keys.ts';

const connection = {
  PLAN: z.string().default('/etc/soma/plan.json'),
  KEYCLOAK_URL: z.url({ protocol: /^https$/, error: 'must be an https URL: the admin secret travels on it' }),
  KEYCLOAK_CA_FILE: z.string().default('/secrets/ca/ca.crt'),
  ADMIN_DIR: z.string().default('/secrets/admin'),
  /** `apply` repairs what differs; `report` only lists it. */
  MODE: z.enum(['apply', 'report']).default('apply'),
  ...waitSettings,
};

const realmSettings = z.object({
  ...connection,
  CLIENTS_DIR: z.string().default('/secrets/clients'),
  USERS_DIR: z.string().default('/secrets/users'),
  /** Where Keycloak tells that a session has ended. */
  LOGOUT_URL: z.url({ protocol: /^https$/, error: 'must be an https URL' }).optional(),
  /** JSON: `sub` of the tokens of the pod that each workload client is. */
  WORKLOAD_SUBJECTS: z
    .string()
    .default('{}')
    .transform((text) => JSON.parse(text))
    .pipe(z.record(z.string(), z.string().regex(/^system:serviceaccount:[a-z0-9-]+:[a-z0-9-]+$/))),
  /** Where the API server says who issues tokens of pods, with the folder of `token` and `ca.crt` for it. */
  KUBERNETES_URL: z
    .url({ protocol: /^https$/, error: 'must be an https URL' })
    .default('https://kubernetes.default.svc'),
  KUBERNETES_DIR: z.string().default('/var/run/secrets/somagent/kubernetes'),
});

const keySettings = z.object({
  ...connection,
  /** `now` begins a rotation at once, `due` when the key is old enough. */
  ROTATE: z.enum(['due', 'now']).default('due'),
});

/** Applies the declared realm through Keycloak's admin API, or lists what differs from it. */
export async function runRealm(env: Environment): Promise<void> {
  const values = readSettings(realmSettings, env);
  const realm = await readJson(realmSchema, values.PLAN);
  const inputs: RealmInputs = {
    secrets: await readPasswords(
      values.CLIENTS_DIR,
      realm.clients.filter(({ workload }) => workload === undefined).map(({ clientId }) => clientId),
    ),
    passwords: await readPasswords(
      values.USERS_DIR,
      realm.people.map(({ username }) => username),
    ),
    logoutUrl: values.LOGOUT_URL,
    workloads: realm.clients.some(({ workload }) => workload !== undefined)
      ? { issuer: await issuerOfPods(values), subjects: values.WORKLOAD_SUBJECTS }
      : undefined,
  };
  const changes = await withKeycloak(values, realm, inputs, async (run) => {
    const appliedBefore = await appliedPlan(run);
    await applyRealm(run);
    const isFirst = run.changes.all.some(({ kind, action }) => kind === 'realm' && action === 'create');
    if (run.changes.mode === 'apply' || !isFirst) await rotateSigningKeys(run, 'due', seconds());
    await removeTemporaryUsers(run);
    tell(run, appliedBefore);
    if (run.changes.mode === 'apply') await noteAppliedPlan(run, appliedBefore);
  });
  log.info('realm done', { realm: realm.name, mode: values.MODE, ...counts(changes) });
}

/** Brings the realm's signing keys one step on. */
export async function runRealmKeys(env: Environment): Promise<void> {
  const values = readSettings(keySettings, env);
  const realm = await readJson(realmSchema, values.PLAN);
  const none: RealmInputs = { secrets: new Map(), passwords: new Map() };
  const changes = await withKeycloak(values, realm, none, (run) => rotateSigningKeys(run, values.ROTATE, seconds()));
  log.info('signing keys done', { realm: realm.name, mode: values.MODE, ...counts(changes) });
}

/** Who issues the tokens of pods, as the API server says it. */
async function issuerOfPods({
  KUBERNETES_URL,
  KUBERNETES_DIR,
  WAIT_SECONDS,
}: z.output<typeof realmSettings>): Promise<string> {
  setDefaultCACertificates([...getCACertificates('default'), await readPem(join(KUBERNETES_DIR, 'ca.crt'))]);
  const ask = async () => {
    const authorization = `Bearer ${(await readFile(join(KUBERNETES_DIR, 'token'), 'utf8')).trim()}`;
    const response = await fetch(`${KUBERNETES_URL}/.well-known/openid-configuration`, { headers: { authorization } });
    return z.object({ issuer: z.url() }).parse(await response.json()).issuer;
  };
  const server = {
    name: 'the API server',
    address: KUBERNETES_URL,
    fix: 'look at the NetworkPolicy, and at the ClusterRoleBinding system:service-account-issuer-discovery',
  };
  return waitFor(server, ask, { seconds: WAIT_SECONDS });
}

const seconds = (): number => Math.floor(Date.now() / 1000);

async function readPasswords(folder: string, names: readonly string[]): Promise<Map<string, string>> {
  const read = async (name: string) => [name, (await readCredentials(join(folder, name))).password] as const;
  return new Map(await Promise.all(names.map(read)));
}

type Connection = z.output<z.ZodObject<typeof connection>>;

/** Signs in and works, again until Keycloak answers. Tokens of the admin live a minute: every attempt signs in anew. */
async function withKeycloak(
  values: Connection,
  realm: ResolvedRealm,
  inputs: RealmInputs,
  work: (run: RealmRun) => Promise<void>,
): Promise<readonly Change[]> {
  const credentials = await readCredentials(values.ADMIN_DIR);
  setDefaultCACertificates([...getCACertificates('default'), await readPem(values.KEYCLOAK_CA_FILE)]);
  const keycloak = {
    name: 'Keycloak',
    address: values.KEYCLOAK_URL,
    fix: 'look at the Keycloak pod and its log, the NetworkPolicy, and the Secrets keycloak-admin and keycloak-tls',
  };
  const attempt = async () => {
    const admin = await signIn(values.KEYCLOAK_URL, credentials);
    const changes = new RealmChanges(values.MODE);
    await work({ admin, realm, inputs, changes });
    return changes.all;
  };
  return waitFor(keycloak, attempt, { seconds: values.WAIT_SECONDS, isFinal: isRefusal });
}

async function signIn(baseUrl: string, { username, password }: Credentials): Promise<KeycloakAdminClient> {
  const client = new KeycloakAdminClient({ baseUrl, realmName: 'master', timeout: 60_000 });
  await client.auth({ grantType: 'client_credentials', clientId: username, clientSecret: password });
  return client;
}

/** Attribute of the realm with the digest of what was last applied to it. */
const appliedAttribute = 'somagent.applied';

/** SHA-256 of the declaration. Secrets are not in it: a digest of them would be one more place to guard. */
const digestOf = ({ realm, inputs }: RealmRun): string =>
  createHash('sha256')
    .update(JSON.stringify([realm, inputs.logoutUrl ?? null, inputs.workloads ?? null]))
    .digest('hex');

async function appliedPlan({ admin, realm }: RealmRun): Promise<string | undefined> {
  const stored = await admin.realms.findOne({ realm: realm.name });
  return stored?.attributes?.[appliedAttribute];
}

async function noteAppliedPlan(run: RealmRun, before: string | undefined): Promise<void> {
  const digest = digestOf(run);
  if (before === digest) return;
  const { admin, realm } = run;
  const stored = await admin.realms.findOne({ realm: realm.name });
  const attributes = { ...stored?.attributes, [appliedAttribute]: digest };
  await admin.realms.update({ realm: realm.name }, { realm: realm.name, attributes });
}

/** Says whether what differed was changed by hand: the same declaration had been applied before. */
function tell(run: RealmRun, appliedBefore: string | undefined): void {
  const changed = run.changes.all.filter(({ kind }) => kind !== 'signing key').length;
  if (appliedBefore !== digestOf(run)) {
    log.info('the declaration is new', { differences: changed });
  } else if (changed === 0) {
    log.info('no drift: the realm is as declared');
  } else {
    const repaired = run.changes.mode === 'apply' ? changed : 0;
    log.warn('drift: the realm was changed by hand', { differences: changed, repaired });
  }
}

function counts(changes: readonly Change[]): Record<'created' | 'updated' | 'removed', number> {
  const of = (action: Change['action']) => changes.filter((change) => change.action === action).length;
  return { created: of('create'), updated: of('update'), removed: of('remove') };
}

/** Keycloak can be started with a temporary administrator who has a password: nobody needs that door. */
async function removeTemporaryUsers({ admin, changes }: RealmRun): Promise<void> {
  for (const user of await admin.users.find({ realm: 'master', max: 200, briefRepresentation: false })) {
    const { id, username = '' } = user;
    const temporary = user.attributes?.is_temporary_admin?.[0] === 'true';
    if (!temporary || id === undefined || username.startsWith('service-account-')) continue;
    const change = { action: 'remove', kind: 'temporary administrator', name: username, fields: [] } as const;
    await changes.make(change, () => admin.users.del({ realm: 'master', id }));
  }
}

/** 400 and 401 to a sign-in, 403 to a change: Keycloak is there and says no. */
function isRefusal(error: unknown): boolean {
  if (codeOf(error) !== undefined) return false;
  if (typeof error !== 'object' || error === null || !('response' in error)) return false;
  return error.response instanceof Response && [400, 401, 403].includes(error.response.status);
}
