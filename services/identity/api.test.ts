import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fetchTrusting, workloadToken } from '@somagent/kit';
import { SignJWT } from 'jose';
import { Accounts } from './accounts.ts';
import { Ledger, ownWork } from './ledger.ts';
import { routes } from './routes.ts';
import { type Answer, issuer, type Replica, TestService } from './testing/service.ts';

const people = {
  operator: { sub: 'olga', roles: ['operator'], preferred_username: 'olga' },
  admin: { sub: 'anna', tenant: 'acme', roles: ['tenant-admin'], preferred_username: 'anna' },
  second: { sub: 'ben', tenant: 'acme', roles: ['tenant-admin'], preferred_username: 'ben' },
  member: { sub: 'mary', tenant: 'acme', roles: ['member'], preferred_username: 'mary' },
  foreign: { sub: 'gina', tenant: 'globex', roles: ['tenant-admin'], preferred_username: 'gina' },
  robot: { sub: 'rob', tenant: 'acme', roles: ['tenant-admin'], preferred_username: 'service-account-acme-rob' },
};
type Who = keyof typeof people;

describe('the API, with the real policy', () => {
  let service: TestService;
  let replica: Replica;
  let trusting: typeof fetch;
  const because = { reason: 'of this test' };

  before(async () => {
    service = await TestService.start();
    replica = await service.replica();
    trusting = fetchTrusting(service.caFile);
    const ledger = new Ledger(service.database.database);
    const accounts = new Accounts(ledger, service.database.database);
    for (const tenant of ['acme', 'globex']) {
      // Through the table: Keycloak is away in this test, and creating a tenant asks it.
      await service.database.database
        .of(tenant)
        .insertInto('tenant')
        .values({ tenant, display_name: tenant })
        .execute();
    }
    const mary = { id: 'mary', kind: 'user' as const, username: 'mary', email: null, roles: ['member'], teams: [] };
    await accounts.put(ownWork('test'), 'acme', mary);
    await service.database.events();
  });
  after(() => service.stop());

  async function ask(who: Who | null, method: string, path: string, body?: unknown, raw?: string): Promise<Answer> {
    const token = raw ?? (who === null ? undefined : await service.token(people[who]));
    const response = await trusting(`${replica.url}${path}`, {
      method,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, body: text === '' ? null : JSON.parse(text) };
  }

  const workload = async (name: string) => workloadToken(await service.workloadFile(name));

  it('answers nobody without a token, on any route', async () => {
    for (const { method, path } of Object.values(routes)) {
      const concrete = path.replaceAll(/\{\w+\}/g, 'acme');
      const answer = await ask(null, method.toUpperCase(), concrete);
      assert.equal(answer.status, 401, `${method} ${path}`);
      assert.equal(answer.body.type, 'urn:somagent:problem:token-missing');
    }
  });

  it('lets an operator, and nobody else, suspend a tenant', async () => {
    for (const who of ['admin', 'member', 'foreign', 'robot'] as const) {
      const answer = await ask(who, 'POST', '/v1/tenants/acme/suspend', because);
      assert.deepEqual([answer.status, answer.body.type], [403, 'urn:somagent:problem:forbidden'], who);
    }
    assert.equal((await ask('operator', 'POST', '/v1/tenants/globex/suspend', because)).body.standing, 'suspended');
    // The suspension is effective here, too: the tenant's own administrator gets no further.
    const refused = await ask('foreign', 'GET', '/v1/tenants/globex');
    assert.deepEqual([refused.status, refused.body.type], [403, 'urn:somagent:problem:suspended']);
    assert.equal((await ask('operator', 'POST', '/v1/tenants/globex/restore', because)).body.standing, 'active');
    assert.equal((await ask('foreign', 'GET', '/v1/tenants/globex')).status, 200);
    const events = await service.database.events();
    assert.deepEqual(
      events.filter(({ topic }) => topic === 'audit.control').map(({ type, actor }) => [type, actor]),
      [
        ['tenant.suspended', 'olga'],
        ['tenant.restored', 'olga'],
      ],
    );
  });

  it('shows no tenant to another one', async () => {
    for (const path of ['', '/users', '/teams', '/api-keys', '/training', '/service-accounts', '/users/mary']) {
      const answer = await ask('foreign', 'GET', `/v1/tenants/acme${path}`);
      assert.equal(answer.status, 403, path);
      assert.equal(JSON.stringify(answer.body).includes('mary'), false);
    }
    const tenants = (await ask('foreign', 'GET', '/v1/tenants')).body.tenants;
    assert.deepEqual(
      tenants.map(({ tenant }: { tenant: string }) => tenant),
      ['globex'],
    );
    assert.equal((await ask('operator', 'GET', '/v1/tenants')).body.tenants.length, 2);
  });

  it('shows of the control state what concerns the caller', async () => {
    await ask('operator', 'POST', '/v1/tenants/globex/halt', because);
    await ask('operator', 'POST', '/v1/tenants/acme/users/mary/suspend', because);
    const [all, own] = [await ask('operator', 'GET', '/v1/control'), await ask('admin', 'GET', '/v1/control')];
    assert.deepEqual(all.body.halted, { all: false, tenants: ['globex'] });
    assert.deepEqual(own.body.halted, { all: false, tenants: [] });
    assert.deepEqual(own.body.suspended.users, ['acme/mary']);
    assert.deepEqual((await ask('foreign', 'GET', '/v1/control')).body.suspended.users, []);
    await ask('operator', 'POST', '/v1/tenants/globex/resume', because);
    await ask('operator', 'POST', '/v1/tenants/acme/users/mary/restore', because);
    assert.equal((await ask('admin', 'POST', '/v1/tenants/acme/halt', because)).status, 403);
    assert.equal((await ask('operator', 'GET', '/v1/control/stream')).status, 403);
  });

  it('unlocks training by two people, never by one or by a machine', async () => {
    const path = '/v1/tenants/acme/training';
    const proposal = (await ask('admin', 'POST', `${path}/proposals`, { reason: 'new corpus' })).body;
    const approve = (who: Who) => ask(who, 'POST', `${path}/proposals/${proposal.id}/approve`);
    const once = await approve('admin');
    assert.deepEqual([once.status, once.body.type], [403, 'urn:somagent:problem:second-person']);
    const machine = await approve('robot');
    assert.deepEqual([machine.status, machine.body.type], [403, 'urn:somagent:problem:not-a-person']);
    assert.equal((await approve('member')).body.type, 'urn:somagent:problem:forbidden');
    assert.equal((await approve('foreign')).body.type, 'urn:somagent:problem:forbidden');
    assert.equal((await ask('member', 'GET', path)).body.training, 'locked');
    assert.deepEqual((await approve('second')).body, { training: 'unlocked', proposal: null });
    assert.equal((await ask('admin', 'POST', `${path}/lock`, because)).body.training, 'locked');
  });

  it('gives a key that is verified for listed workloads, works within its scopes and stops at once', async () => {
    const wish = { owner: 'mary', name: 'ci', scopes: ['tenant:read', 'user:read'], days: 1 };
    const made = (await ask('admin', 'POST', '/v1/tenants/acme/api-keys', wish)).body;
    const verify = async (raw: string) => ask(null, 'POST', '/v1/api-keys/verify', { key: made.secret }, raw);
    const { holder } = (await verify(await workload('gateway'))).body;
    assert.deepEqual([holder.tenant, holder.subject, holder.scopes], ['acme', 'mary', ['tenant:read', 'user:read']]);
    assert.equal((await verify(await workload('stranger'))).status, 403);
    assert.equal((await verify(await workload('orchestrator'))).body.type, 'urn:somagent:problem:forbidden');
    assert.equal((await verify(await service.token(people.operator))).status, 403);

    const withKey = (path: string) => ask(null, 'GET', path, undefined, made.secret);
    assert.equal((await withKey('/v1/tenants/acme')).status, 200);
    // In the scopes and not in the roles of the owner; in the roles and not in the scopes.
    assert.equal((await withKey('/v1/tenants/acme/users')).status, 403);
    assert.equal((await withKey('/v1/tenants/acme/training')).status, 403);
    assert.equal((await ask('admin', 'POST', `/v1/tenants/acme/api-keys/${made.key.id}/revoke`, because)).status, 200);
    assert.equal((await withKey('/v1/tenants/acme')).status, 401);
    assert.equal((await verify(await workload('gateway'))).body.holder, null);
  });

  it('revokes a login session: a token of it that has not expired is refused', async () => {
    const token = await service.token({ ...people.member, sid: 's-1', jti: 'j-1' });
    const read = () => ask(null, 'GET', '/v1/tenants/acme', undefined, token);
    assert.equal((await read()).status, 200);
    const body = { kind: 'session', id: 's-1', ...because };
    assert.deepEqual((await ask('admin', 'POST', '/v1/tenants/acme/revocations', body)).body, { changed: true });
    const refused = await read();
    assert.deepEqual([refused.status, refused.body.type], [401, 'urn:somagent:problem:token-revoked']);
  });

  describe('the back channel of logouts', () => {
    const event = 'http://schemas.openid.net/event/backchannel-logout';
    type Changes = Readonly<Record<string, unknown>>;
    const logoutToken = (changes: Changes = {}, typ = 'logout+jwt', from = issuer) => {
      const now = Math.floor(Date.now() / 1000);
      const claims = { sid: 's-2', sub: 'mary', jti: crypto.randomUUID(), events: { [event]: {} } };
      return service.signed(
        new SignJWT({ iss: from, aud: 'somagent-cli', iat: now, exp: now + 60, ...claims, ...changes }),
        typ,
      );
    };
    const send = async (token: string, type = 'application/x-www-form-urlencoded') => {
      const body = new URLSearchParams({ logout_token: token }).toString();
      const headers = { 'content-type': type };
      const response = await trusting(`${replica.url}/v1/backchannel-logout`, { method: 'POST', headers, body });
      return response.status;
    };

    it('ends the session everywhere, once', async () => {
      const token = await service.token({ ...people.member, sid: 's-2' });
      const read = async () => (await ask(null, 'GET', '/v1/tenants/acme', undefined, token)).status;
      await service.database.events();
      assert.equal(await read(), 200);
      assert.deepEqual([await send(await logoutToken()), await send(await logoutToken())], [200, 200]);
      assert.equal(await read(), 401);
      const [event, ...more] = (await service.database.events()).map(({ type, tenant, data }) => [type, tenant, data]);
      assert.deepEqual(event, [
        'credential.revoked',
        'acme',
        { kind: 'session', id: 's-2', reason: 'the login session has ended' },
      ]);
      assert.deepEqual(more, []);
      const verdict = service.verdicts.findLast(({ route }) => route === 'backchannelLogout');
      assert.deepEqual([verdict?.allow, verdict?.rule], [true, 'soma.identity.logout_token']);
    });

    it('refuses what is no logout token of the issuer', async () => {
      const old = Math.floor(Date.now() / 1000) - 600;
      const refusals: readonly [string, Promise<string>][] = [
        ['an access token', service.token({ ...people.member, sid: 's-3' })],
        ['one of another type', logoutToken({ sid: 's-3' }, 'JWT')],
        ['one of another issuer', logoutToken({ sid: 's-3' }, 'logout+jwt', 'https://evil.test')],
        ['one for another client', logoutToken({ sid: 's-3', aud: 'somagent-gateway' })],
        ['an old one', logoutToken({ sid: 's-3', iat: old })],
        ['one with a nonce', logoutToken({ sid: 's-3', nonce: 'n' })],
        ['one without the event', logoutToken({ sid: 's-3', events: {} })],
        ['one without a session', logoutToken({ sid: undefined })],
        ['none', Promise.resolve('x')],
      ];
      for (const [name, token] of refusals) assert.equal(await send(await token), 401, name);
      assert.equal(await send(await logoutToken({ sid: 's-3' }), 'application/json'), 415);
      assert.equal(replica.feed.view.revoked({ sid: 's-3' }), false);
      const refused = service.verdicts.filter(({ route, allow }) => route === 'backchannelLogout' && !allow);
      assert.equal(refused.length, refusals.length + 1);
    });
  });

  it('says that Keycloak is away, and changes nothing, when it can not create a person there', async () => {
    const answer = await ask('admin', 'PUT', '/v1/tenants/acme/users/by-name/zoe', { roles: ['member'] });
    assert.deepEqual([answer.status, answer.body.type], [503, 'urn:somagent:problem:keycloak-away']);
    assert.deepEqual((await ask('admin', 'GET', '/v1/tenants/acme/users')).body.users.length, 1);
  });
});
