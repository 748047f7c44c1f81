/** The declared realm on a real Keycloak: applied, left alone, drifted, repaired, its keys rotated. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { type Realm, realmSchema } from '../realm-types.ts';
import { startKeycloak, type TestKeycloak } from '../testing/keycloak.ts';
import { administrator, RealmFiles } from '../testing/realm.ts';
import { RealmChanges } from './changes.ts';
import { rotateSigningKeys } from './signing-keys.ts';

const audience = 'somagent-gateway';
const declared = {
  name: 'trial',
  accessTokenSeconds: 60,
  resourceServers: [audience],
  roles: [
    { name: 'agent', description: 'Works in sessions' },
    { name: 'member', description: 'Sees sessions' },
    { name: 'tenant-admin', description: 'Administers' },
  ],
  scopes: [
    {
      name: 'who',
      description: 'Who',
      claims: ['tenant', 'teams', 'roles', 'preferred_username'],
      roles: ['agent', 'member', 'tenant-admin'],
    },
    { name: 'gateway', description: 'For whom', audiences: [audience] },
  ],
  tenants: [
    { name: 'acme', teams: ['blue', 'green'] },
    { name: 'globex', teams: ['blue'] },
  ],
  clients: [
    { clientId: 'acme-agent', tenant: 'acme', teams: ['blue'], roles: ['agent'], scopes: ['who', 'gateway'] },
    { clientId: 'globex-agent', tenant: 'globex', teams: ['blue'], roles: ['agent'], scopes: ['who', 'gateway'] },
    { clientId: 'foreign', tenant: 'acme', roles: ['agent'], scopes: ['who'] },
    { clientId: 'untenanted', roles: ['agent'], scopes: ['who', 'gateway'] },
    { clientId: 'identity', scopes: [], managementRoles: ['manage-clients', 'manage-users'] },
  ],
  publicClients: [
    { clientId: 'cli', scopes: ['who', 'gateway'], redirectUris: ['http://127.0.0.1/callback'], deviceGrant: true },
  ],
  people: [
    {
      username: 'ada',
      firstName: 'Ada',
      lastName: 'L',
      email: 'ada@example.com',
      tenant: 'acme',
      teams: ['green'],
      roles: ['member'],
    },
  ],
} satisfies Realm;

let keycloak: TestKeycloak;
let files: RealmFiles;

const realmUrl = () => `${keycloak.url}/realms/${declared.name}`;

async function requestToken(clientId: string, secret = files.secret(clientId)): Promise<Response> {
  const body = new URLSearchParams({ grant_type: 'client_credentials', client_id: clientId, client_secret: secret });
  return fetch(`${realmUrl()}/protocol/openid-connect/token`, { method: 'POST', body });
}

async function tokenOf(clientId: string): Promise<string> {
  const response = await requestToken(clientId);
  assert.equal(response.status, 200);
  return ((await response.json()) as { access_token: string }).access_token;
}

/** Number of changes that Keycloak itself has noted in the realm. */
async function adminEvents(): Promise<number> {
  const admin = await administrator(keycloak);
  return (await admin.realms.findAdminEvents({ realm: declared.name, max: 1000 })).length;
}

const messages = (output: { readonly lines: readonly Readonly<Record<string, unknown>>[] }) =>
  output.lines.map(({ message }) => message);

before(
  async () => {
    keycloak = await startKeycloak();
    setDefaultCACertificates([...getCACertificates('default'), keycloak.ca]);
    files = new RealmFiles(keycloak);
    const { code, text } = await files.run(declared);
    assert.equal(code, 0, text);
  },
  { timeout: 600_000 },
);
after(() => keycloak?.stop());

describe('an applied realm', () => {
  it('says in tokens who it is and for whom', async () => {
    const { tenant, teams, roles, aud, typ, sub, ...rest } = decodeJwt(await tokenOf('acme-agent'));
    assert.deepEqual([tenant, teams, roles, aud, typ], ['acme', ['blue'], ['agent'], audience, 'Bearer']);
    assert.equal(rest.preferred_username, 'service-account-acme-agent');
    assert.match(String(sub), /^[0-9a-f-]{36}$/);
    assert.equal(decodeJwt(await tokenOf('globex-agent')).tenant, 'globex');
    assert.equal(decodeJwt(await tokenOf('foreign')).aud, undefined);
    assert.equal(decodeJwt(await tokenOf('untenanted')).tenant, undefined);
  });

  it('gives the identity service accounts and clients, and nothing of the realm itself', async () => {
    const { aud, roles, resource_access } = decodeJwt(await tokenOf('identity'));
    assert.deepEqual([aud, roles, resource_access], [undefined, undefined, undefined]);
    const realm = declared.name;
    const identity = new KeycloakAdminClient({ baseUrl: keycloak.url, realmName: realm });
    const clientSecret = files.secret('identity');
    await identity.auth({ grantType: 'client_credentials', clientId: 'identity', clientSecret });
    const [ada] = await identity.users.find({ username: 'ada', exact: true });
    assert.ok(ada?.id);
    assert.ok(
      (await identity.users.listAvailableRealmRoleMappings({ id: ada.id })).some(({ name }) => name === 'agent'),
    );
    assert.deepEqual(
      (await identity.groups.find({})).map(({ name }) => name),
      ['acme', 'globex'],
    );
    const refused = (what: string, call: Promise<unknown>) =>
      assert.rejects(call, (error: { response?: Response }) => error.response?.status === 403, what);
    await refused('settings', identity.realms.update({ realm }, { realm, sslRequired: 'none' }));
    await refused(
      'signing keys',
      identity.components.create({
        realm,
        name: 'mine',
        providerId: 'rsa-generated',
        providerType: 'org.keycloak.keys.KeyProvider',
      }),
    );
    await refused('scopes of all', identity.roles.create({ realm, name: 'king' }));
    const [own] = await identity.users.find({ username: 'service-account-identity', exact: true });
    const [management] = await identity.clients.find({ clientId: 'realm-management' });
    const all = await (await administrator(keycloak)).clients.findRole({
      realm,
      id: management?.id ?? '',
      roleName: 'realm-admin',
    });
    const mapping = {
      id: own?.id ?? '',
      clientUniqueId: management?.id ?? '',
      roles: [{ id: all?.id ?? '', name: 'realm-admin' }],
    };
    await refused('more rights', identity.users.addClientRoleMappings(mapping));
  });

  it('refuses a wrong secret, a password of a person, and a sign-in without PKCE', async () => {
    assert.equal((await requestToken('acme-agent', 'wrong')).status, 401);
    const grant = { grant_type: 'password', client_id: 'cli', username: 'ada', password: files.secret('ada') };
    const direct = await fetch(`${realmUrl()}/protocol/openid-connect/token`, {
      method: 'POST',
      body: new URLSearchParams(grant),
    });
    assert.deepEqual([direct.status, ((await direct.json()) as { error: string }).error], [400, 'unauthorized_client']);
    const query = new URLSearchParams({
      response_type: 'code',
      client_id: 'cli',
      scope: 'openid',
      redirect_uri: 'http://127.0.0.1:4711/callback',
    });
    const plain = await fetch(`${realmUrl()}/protocol/openid-connect/auth?${query}`, { redirect: 'manual' });
    const back = new URL(plain.headers.get('location') ?? 'none:');
    assert.deepEqual([back.origin, back.searchParams.get('error')], ['http://127.0.0.1:4711', 'invalid_request']);
    assert.match(back.searchParams.get('error_description') ?? '', /code_challenge/);
  });

  it('refuses to send a code anywhere but to the declared address', async () => {
    const query = new URLSearchParams({
      response_type: 'code',
      client_id: 'cli',
      redirect_uri: 'http://127.0.0.1.evil.example/callback',
    });
    assert.equal(
      (await fetch(`${realmUrl()}/protocol/openid-connect/auth?${query}`, { redirect: 'manual' })).status,
      400,
    );
  });

  it('is left alone when it is applied again: it says so and writes nothing', async () => {
    const events = await adminEvents();
    const again = await files.run(declared);
    assert.equal(again.code, 0, again.text);
    assert.deepEqual(messages(again), ['no drift: the realm is as declared', 'realm done', 'done']);
    assert.equal(await adminEvents(), events);
  });
});

/** What an administrator might do by hand, each in its own kind of object. */
async function drift(): Promise<void> {
  const admin = await administrator(keycloak);
  const realm = declared.name;
  await admin.realms.update({ realm }, { realm, sslRequired: 'none', accessTokenLifespan: 86_400 });
  const [agent] = await admin.clients.find({ realm, clientId: 'acme-agent' });
  assert.ok(agent?.id);
  await admin.clients.update(
    { realm, id: agent.id },
    { ...agent, directAccessGrantsEnabled: true, secret: 'known to all' },
  );
  await admin.clients.addProtocolMapper(
    { realm, id: agent.id },
    {
      name: 'more',
      protocol: 'openid-connect',
      protocolMapper: 'oidc-hardcoded-claim-mapper',
      config: { 'claim.name': 'tenant', 'claim.value': 'globex', 'access.token.claim': 'true' },
    },
  );
  const user = await admin.clients.getServiceAccountUser({ realm, id: agent.id });
  const role = await admin.roles.findOneByName({ realm, name: 'tenant-admin' });
  assert.ok(user.id && role?.id);
  await admin.users.addRealmRoleMappings({ realm, id: user.id, roles: [{ id: role.id, name: 'tenant-admin' }] });
  const [group] = await admin.groups.find({ realm, search: 'globex', exact: true });
  assert.ok(group?.id);
  await admin.groups.update({ realm, id: group.id }, { name: 'globex', attributes: { tenant: ['acme'] } });
  await admin.users.addToGroup({ realm, id: user.id, groupId: group.id });
}

describe('drift', () => {
  const found = [
    'realm trial update sslRequired: "none" -> "all"',
    'realm trial update accessTokenLifespan: 86400 -> 60',
    'client acme-agent update directAccessGrantsEnabled: true -> false',
    'client acme-agent update secret: "(secret)" -> "(secret)"',
    'mapper acme-agent/more remove',
    'role acme-agent/tenant-admin remove',
    'group /globex update attributes.tenant: ["acme"] -> ["globex"]',
    'membership acme-agent//globex remove',
  ];
  const told = (lines: readonly Readonly<Record<string, unknown>>[]) =>
    lines
      .filter(({ action }) => action !== undefined)
      .flatMap(({ message, name, action, fields = [''] }) =>
        (fields as string[]).map((field) =>
          `${String(message).replace(/ is .*/, '')} ${name} ${action} ${field}`.trim(),
        ),
      );

  it('is listed with before and after, and nothing is written, when only a report is asked for', async () => {
    await drift();
    const events = await adminEvents();
    const report = await files.run(declared, 'report');
    assert.equal(report.code, 0, report.text);
    const expected = found.map((line) => line.replace(/ (update|remove)( |$)/, ' none$2'));
    assert.deepEqual(told(report.lines).sort(), expected.sort());
    assert.ok(
      report.lines.some(
        ({ message, repaired }) => message === 'drift: the realm was changed by hand' && repaired === 0,
      ),
    );
    assert.equal(await adminEvents(), events);
    assert.equal((await requestToken('acme-agent', 'known to all')).status, 200);
  });

  it('is repaired, and the next run finds none', async () => {
    const repair = await files.run(declared);
    assert.equal(repair.code, 0, repair.text);
    assert.deepEqual(told(repair.lines).sort(), found.toSorted());
    assert.ok(
      repair.lines.some(
        ({ message, repaired }) => message === 'drift: the realm was changed by hand' && Number(repaired) > 0,
      ),
    );
    assert.equal(repair.text.includes('known to all'), false);
    assert.equal(repair.text.includes(files.secret('acme-agent')), false);
    assert.deepEqual(messages(await files.run(declared)), ['no drift: the realm is as declared', 'realm done', 'done']);
    assert.equal((await requestToken('acme-agent', 'known to all')).status, 401);
    const { tenant, roles } = decodeJwt(await tokenOf('acme-agent'));
    assert.deepEqual([tenant, roles], ['acme', ['agent']]);
  });

  it('is told apart from a new declaration, and who was disabled stays disabled', async () => {
    const admin = await administrator(keycloak);
    const [ada] = await admin.users.find({ realm: declared.name, username: 'ada', exact: true });
    assert.ok(ada?.id);
    await admin.users.update({ realm: declared.name, id: ada.id }, { ...ada, enabled: false });
    const [client] = await admin.clients.find({ realm: declared.name, clientId: 'foreign' });
    assert.ok(client?.id);
    await admin.clients.update({ realm: declared.name, id: client.id }, { ...client, enabled: false });
    const changed = { ...declared, people: declared.people.map((one) => ({ ...one, lastName: 'Lovelace' })) };
    const output = await files.run(changed);
    assert.deepEqual(messages(output), ['person is not as declared', 'the declaration is new', 'realm done', 'done']);
    const [stored] = await admin.users.find({ realm: declared.name, username: 'ada', exact: true });
    assert.deepEqual([stored?.lastName, stored?.enabled], ['Lovelace', false]);
    assert.equal((await requestToken('foreign')).status, 401);
  });
});

describe('signing keys', () => {
  const kids = async () => {
    const { keys } = (await (await fetch(`${realmUrl()}/protocol/openid-connect/certs`)).json()) as {
      keys: { kid: string; use: string }[];
    };
    return keys.filter(({ use }) => use === 'sig').map(({ kid }) => kid);
  };
  const rules = { replaceAfter: 1000, publish: 50, retire: 100 };
  const verify = async (token: string) =>
    jwtVerify(token, createRemoteJWKSet(new URL(`${realmUrl()}/protocol/openid-connect/certs`)), {
      issuer: realmUrl(),
    });

  it('are published, then sign, then only verify, then are gone', { timeout: 60_000 }, async () => {
    const step = async (now: number) => {
      const inputs = { secrets: new Map(), passwords: new Map() };
      const run = {
        admin: await administrator(keycloak),
        realm: realmSchema.parse(declared),
        inputs,
        changes: new RealmChanges('apply'),
      };
      await rotateSigningKeys(run, 'due', now, rules);
    };
    const old = await tokenOf('acme-agent');
    // The first run of the Job has published a key already; this continues from there.
    const start = Math.floor(Date.now() / 1000) + 10;
    const published = await kids();
    assert.equal(published.length, 2);
    assert.equal(decodeProtectedHeader(await tokenOf('acme-agent')).kid, decodeProtectedHeader(old).kid);
    await step(start + 50);
    assert.deepEqual((await kids()).sort(), published.toSorted());
    const fresh = await tokenOf('acme-agent');
    assert.notEqual(decodeProtectedHeader(fresh).kid, decodeProtectedHeader(old).kid);
    await verify(old);
    await verify(fresh);
    await step(start + 149);
    assert.equal((await kids()).length, 2);
    await step(start + 150);
    assert.deepEqual(await kids(), [decodeProtectedHeader(fresh).kid]);
    await verify(fresh);
    await assert.rejects(verify(old), { code: 'ERR_JWKS_NO_MATCHING_KEY' });
  });
});

describe('a database that fails over', () => {
  it('costs no token request: broken connections are replaced before they are used', { timeout: 60_000 }, async () => {
    const statuses = async () =>
      (await Promise.all(Array.from({ length: 40 }, () => requestToken('globex-agent')))).map(({ status }) => status);
    const good = Array.from({ length: 40 }, () => 200);
    assert.deepEqual(await statuses(), good);
    const postgres = await keycloak.postgres.connect('postgres');
    const { rows } = await postgres.query(
      "select count(pg_terminate_backend(pid))::int as ended from pg_stat_activity where datname = 'keycloak'",
    );
    await postgres.end();
    assert.ok(rows[0].ended >= 10, `only ${rows[0].ended} connections were there to break`);
    assert.deepEqual(await statuses(), good);
  });
});
