import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import { z } from 'zod';
import { codeOf } from '../failure.ts';
import { log } from '../log.ts';
import { realmSchema } from '../realm-types.ts';
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
import { applyRealm } from './apply.ts';

const settings = z.object({
  PLAN: z.string().default('/etc/soma/plan.json'),
  KEYCLOAK_URL: z.url({ protocol: /^https$/, error: 'must be an https URL: the admin secret travels on it' }),
  KEYCLOAK_CA_FILE: z.string().default('/secrets/ca/ca.crt'),
  ADMIN_DIR: z.string().default('/secrets/admin'),
  CLIENTS_DIR: z.string().default('/secrets/clients'),
  ...waitSettings,
});

/** Applies the declared realm through Keycloak's admin API. */
export async function runRealm(env: Environment): Promise<void> {
  const values = readSettings(settings, env);
  const realm = await readJson(realmSchema, values.PLAN);
  const admin = await readCredentials(values.ADMIN_DIR);
  const secrets = new Map<string, string>();
  for (const { clientId } of realm.clients) {
    secrets.set(clientId, (await readCredentials(join(values.CLIENTS_DIR, clientId))).password);
  }
  setDefaultCACertificates([...getCACertificates('default'), await readPem(values.KEYCLOAK_CA_FILE)]);
  const keycloak = {
    name: 'Keycloak',
    address: values.KEYCLOAK_URL,
    fix: 'look at the Keycloak pod and its log, the NetworkPolicy, and the Secrets keycloak-admin and keycloak-tls',
  };
  const counts = await waitFor(keycloak, () => applyOnce(values.KEYCLOAK_URL, admin, realm, secrets), {
    seconds: values.WAIT_SECONDS,
    isFinal: isRefusal,
  });
  log.info('realm done', { realm: realm.name, ...counts });
}

/** Tokens of the admin live a minute: every attempt signs in anew. */
async function applyOnce(
  baseUrl: string,
  admin: Credentials,
  realm: Parameters<typeof applyRealm>[1],
  secrets: ReadonlyMap<string, string>,
): Promise<Awaited<ReturnType<typeof applyRealm>>> {
  const client = new KeycloakAdminClient({ baseUrl, realmName: 'master', timeout: 15_000 });
  await client.auth({ grantType: 'client_credentials', clientId: admin.username, clientSecret: admin.password });
  const counts = await applyRealm(client, realm, secrets);
  await removeTemporaryUsers(client);
  return counts;
}

/** Keycloak can be started with a temporary administrator who has a password: nobody needs that door. */
async function removeTemporaryUsers(client: KeycloakAdminClient): Promise<void> {
  for (const user of await client.users.find({ realm: 'master', max: 200, briefRepresentation: false })) {
    const temporary = user.attributes?.is_temporary_admin?.[0] === 'true';
    if (!temporary || user.id === undefined || user.username?.startsWith('service-account-')) continue;
    await client.users.del({ realm: 'master', id: user.id });
    log.warn('temporary administrator removed', { user: user.username });
  }
}

/** 400 and 401 to a sign-in, 403 to a change: Keycloak is there and says no. */
function isRefusal(error: unknown): boolean {
  if (codeOf(error) !== undefined) return false;
  if (typeof error !== 'object' || error === null || !('response' in error)) return false;
  return error.response instanceof Response && [400, 401, 403].includes(error.response.status);
}
