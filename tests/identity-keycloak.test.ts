/** Accounts on a real Keycloak, with the realm of the platform and the rights that its code gives to this service. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { startKeycloak, type TestKeycloak } from '@somagent/bootstrap/testing/keycloak.ts';
import { administrator, RealmFiles, withSecrets } from '@somagent/bootstrap/testing/realm.ts';
import { Problem } from '@somagent/governance';
import { Accounts } from '@somagent/identity/accounts.ts';
import { Directory } from '@somagent/identity/directory.ts';
import { Keycloak } from '@somagent/identity/keycloak.ts';
import { Ledger, type Origin } from '@somagent/identity/ledger.ts';
import { Reconciliation } from '@somagent/identity/reconciliation.ts';
import { Tenants } from '@somagent/identity/tenants.ts';
import { quiet, startIdentityDatabase, type TestIdentityDatabase } from '@somagent/identity/testing/database.ts';
import { decodeJwt } from 'jose';
import { platformRealm } from '../stacks/realm.ts';

const realm = withSecrets(platformRealm('dev', { tenants: ['acme', 'globex'], probeClients: false }));
const anna: Origin = { actor: { kind: 'user', id: 'anna', client: 'somagent-cli' }, requestId: 'r-1' };

describe('accounts in Keycloak', () => {
  let server: TestKeycloak;
  let files: RealmFiles;
  let database: TestIdentityDatabase;
  let keycloak: Keycloak;
  let tenants: Tenants;
  let accounts: Accounts;
  let directory: Directory;
  let reconciliation: Reconciliation;

  before(
    async () => {
      server = await startKeycloak();
      setDefaultCACertificates([...getCACertificates('default'), server.ca]);
      files = new RealmFiles(server);
      const { code, text } = await files.run(realm);
      assert.equal(code, 0, text);
      database = await startIdentityDatabase();
      const ledger = new Ledger(database.database);
      keycloak = new Keycloak({
        url: server.url,
        realm: realm.name,
        credentials: () => ({
          client_id: 'somagent-identity',
          client_secret: files.secret('somagent-identity'),
        }),
        clientScopes: ['somagent', 'somagent-gateway'],
      });
      tenants = new Tenants(ledger, database.database);
      accounts = new Accounts(ledger, database.database);
      directory = new Directory(accounts, keycloak, quiet);
      reconciliation = new Reconciliation({ ledger, tenants, accounts, keycloak, log: quiet });
    },
    { timeout: 600_000 },
  );
  after(async () => {
    await database?.stop();
    await server?.stop();
  });

  async function signIn(clientId: string, secret: string) {
    const body = new URLSearchParams({ grant_type: 'client_credentials', client_id: clientId, client_secret: secret });
    const url = `${server.url}/realms/${realm.name}/protocol/openid-connect/token`;
    const response = await fetch(url, { method: 'POST', body });
    const answer = (await response.json()) as { access_token?: string };
    const token = answer.access_token ?? '';
    return { status: response.status, token, claims: token === '' ? {} : decodeJwt(token) };
  }
  const reportOf = async () =>
    (await reconciliation.report()).differences.map(({ kind, name, difference }) => `${kind} ${name} ${difference}`);
  const refusedAs = (type: string) => (error: unknown) => error instanceof Problem && error.type === type;

  it('takes what the realm declares into the database, and finds no difference afterwards', async () => {
    const before = await reportOf();
    assert.ok(before.includes('tenant acme missing here'), before.join('; '));
    const { failed } = await reconciliation.repair();
    assert.deepEqual(failed, []);
    assert.deepEqual(await reportOf(), []);
    const [agent] = await accounts.list('acme', 'service-account', 1);
    assert.deepEqual([agent?.username, agent?.roles, agent?.standing], ['acme-agent', ['agent'], 'active']);
    const adopted = (await database.events()).filter(({ topic }) => topic === 'audit.identity');
    assert.ok(adopted.every(({ actor }) => actor === 'reconciliation'));
    assert.equal((await reconciliation.repair()).repaired, 0);
    assert.deepEqual(await database.events(), []);
  });

  it('creates a service account that can sign in, with tenant, teams and roles in its tokens', async () => {
    await directory.putTeam(anna, 'acme', 'red');
    const wish = { username: 'acme-runner', email: null, roles: ['agent'], teams: ['red'] };
    const made = await directory.putServiceAccount(anna, 'acme', wish);
    assert.ok(made.credential);
    const { status, claims } = await signIn('acme-runner', made.credential);
    assert.equal(status, 200);
    assert.deepEqual(
      [claims.sub, claims.tenant, claims.teams, claims.roles, claims.aud],
      [made.account.id, 'acme', ['red'], ['agent'], 'somagent-gateway'],
    );
    assert.equal((await directory.putServiceAccount(anna, 'acme', wish)).credential, null);
    await assert.rejects(
      directory.putServiceAccount(anna, 'acme', { ...wish, username: 'globex-agent' }),
      refusedAs('invalid-request'),
    );
    assert.deepEqual(await reportOf(), []);
  });

  it('lets a suspended account get no token, and a restored one again', async () => {
    const [runner] = (await accounts.list('acme', 'service-account', 100)).filter((a) => a.username === 'acme-runner');
    assert.ok(runner);
    const credential = await keycloak.newClientSecret('acme-runner');
    await accounts.suspend(anna, 'acme', runner.id, 'x');
    assert.deepEqual(await reportOf(), ['service-account acme-runner differs: enabled']);
    await reconciliation.repair();
    assert.notEqual((await signIn('acme-runner', credential)).status, 200);
    await accounts.restore(anna, 'acme', runner.id, 'x');
    await reconciliation.repair();
    assert.equal((await signIn('acme-runner', credential)).status, 200);
  });

  it('lets nobody of a suspended tenant get a token', async () => {
    await tenants.suspend(anna, 'globex', 'x');
    await reconciliation.repair();
    assert.notEqual((await signIn('globex-agent', files.secret('globex-agent'))).status, 200);
    assert.equal((await signIn('acme-agent', files.secret('acme-agent'))).status, 200);
    await tenants.restore(anna, 'globex', 'x');
    await reconciliation.repair();
    assert.equal((await signIn('globex-agent', files.secret('globex-agent'))).status, 200);
  });

  it('leaves the later of two changes in force, however close they come', async () => {
    for (let round = 0; round < 3; round += 1) {
      await tenants.suspend(anna, 'acme', 'test');
      directory.follow({ tenant: 'acme' });
      await tenants.restore(anna, 'acme', 'test');
      directory.follow({ tenant: 'acme' });
    }
    // In turn after the six before it: when it has been followed, they have.
    await directory.putUser(anna, 'acme', { username: 'last-in-turn', email: null, roles: ['member'], teams: [] });
    assert.deepEqual((await reconciliation.report()).differences, []);
  });

  it('creates a person once, finishes what was interrupted and takes over nobody', async () => {
    const wish = { username: 'zoe', email: 'zoe@example.com', roles: ['member'], teams: ['red'] };
    // As a creation leaves it that was killed after its first step.
    const leftover = await keycloak.createUser(wish);
    const made = await directory.putUser(anna, 'acme', wish);
    assert.equal(made.account.id, leftover);
    assert.ok(made.credential);
    assert.deepEqual(await reportOf(), []);
    const again = await directory.putUser(anna, 'acme', { ...wish, roles: ['tenant-admin'] });
    assert.deepEqual([again.credential, again.account.roles], [null, ['tenant-admin']]);
    assert.deepEqual(await reportOf(), []);
    await assert.rejects(directory.putUser(anna, 'globex', { ...wish, teams: [] }), refusedAs('name-taken'));
    const operator = realm.people?.find(({ tenant }) => tenant === undefined);
    assert.ok(operator, 'the realm of dev declares an operator');
    await assert.rejects(
      directory.putUser(anna, 'acme', { ...wish, username: operator.username, email: null }),
      refusedAs('name-taken'),
    );
  });

  it('repairs what somebody changed in Keycloak by hand, and records it', async () => {
    const admin = await administrator(server);
    const [zoe] = await admin.users.find({ realm: realm.name, username: 'zoe', exact: true });
    const id = zoe?.id ?? '';
    const auditor = await admin.roles.findOneByName({ realm: realm.name, name: 'auditor' });
    await admin.users.addRealmRoleMappings({
      realm: realm.name,
      id,
      roles: [{ id: auditor?.id ?? '', name: 'auditor' }],
    });
    await admin.users.update({ realm: realm.name, id }, { ...zoe, enabled: false });
    assert.deepEqual(await reportOf(), ['user zoe differs: roles, enabled']);
    await database.events();
    assert.equal((await reconciliation.repair()).repaired, 1);
    assert.deepEqual(await reportOf(), []);
    const [event, ...more] = await database.events();
    assert.deepEqual([event?.type, event?.data.changed], ['user.updated', ['keycloak:roles', 'keycloak:enabled']]);
    assert.deepEqual(more, []);

    await admin.users.del({ realm: realm.name, id });
    assert.deepEqual(await reportOf(), ['user zoe missing in Keycloak']);
    await reconciliation.repair();
    assert.deepEqual(await accounts.find('acme', 'user', 'zoe'), undefined);
    assert.deepEqual(await reportOf(), []);
  });

  it('removes an account from both', async () => {
    const [runner] = (await accounts.list('acme', 'service-account', 100)).filter((a) => a.username === 'acme-runner');
    await directory.remove(anna, 'acme', 'service-account', runner?.id ?? '');
    await directory.remove(anna, 'acme', 'service-account', runner?.id ?? '');
    assert.equal(await keycloak.find('service-account', 'acme-runner'), undefined);
    await directory.removeTeam(anna, 'acme', 'red');
    assert.deepEqual(await reportOf(), []);
  });

  it('has no right beyond accounts and clients: the realm, its keys and other realms are refused to it', async () => {
    const { token } = await signIn('somagent-identity', files.secret('somagent-identity'));
    const ask = async (method: string, path: string) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
      const body = method === 'PUT' ? JSON.stringify({ displayName: 'mine' }) : null;
      return (await fetch(`${server.url}/admin/realms${path}`, { method, headers, body })).status;
    };
    assert.equal(await ask('GET', `/${realm.name}/users/count`), 200);
    assert.equal(await ask('PUT', `/${realm.name}`), 403);
    assert.equal(await ask('GET', `/${realm.name}/keys`), 403);
    assert.equal(await ask('GET', `/${realm.name}/components`), 403);
    assert.equal(await ask('GET', '/master/users'), 403);
  });
});
