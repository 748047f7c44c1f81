/** Suspension, revocation, training mode and the kill switch, on the running platform: everywhere, at once, recorded once. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { decodeJwt } from 'jose';
import { loginAs, logout, type Person } from './attacks/world.ts';
import { address, authorityPem, call, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const because = { reason: 'a test of the platform' };

interface Answer {
  readonly status: number;
  readonly requestId: string;
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape are compared with literals
  readonly body: any;
}

async function ask(base: string, token: string, method: string, path: string, body?: unknown): Promise<Answer> {
  const headers = {
    authorization: `Bearer ${token}`,
    ...(body !== undefined && { 'content-type': 'application/json' }),
  };
  const init = { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) };
  const response = await fetch(`${base}${path}`, init);
  const text = await response.text();
  const requestId = response.headers.get('x-request-id') ?? '';
  return { status: response.status, requestId, body: text === '' ? null : JSON.parse(text) };
}

let accountsUrl = '';
let auditUrl = '';
const people = new Map<string, Person>();
let agent = '';

/** A token of a person; logins are kept for all tests. */
async function person(name: string): Promise<string> {
  const known = people.get(name) ?? (await loginAs(name));
  people.set(name, known);
  return known.access;
}

const operate = async (method: string, path: string, body?: unknown): Promise<Answer> =>
  ask(accountsUrl, await person('operator-1'), method, path, body);

/** Asks the gateway again and again. @returns milliseconds until `done` says yes, since `began` */
async function untilGateway(token: string, done: (status: number) => boolean, began: number): Promise<number> {
  for (;;) {
    const { status } = await call('/v1/sessions?limit=1', { token });
    if (done(status)) return performance.now() - began;
    if (performance.now() - began > 10_000) throw new Error(`the gateway still answers ${status} after 10 s`);
    await sleep(10);
  }
}

const typeOf = (leaf: string): string => (JSON.parse(leaf) as { readonly event: { readonly type: string } }).event.type;

/** Types of the audit events of a request: each once, however often Kafka brings them. */
async function recorded(requestId: string, atLeast: number): Promise<string[]> {
  const token = await person('operator-1');
  const typesNow = async () => {
    const { body } = await ask(auditUrl, token, 'GET', `/v1/audit/entries?requestId=${requestId}&limit=500`);
    const entries = body.entries as { readonly leaf: string }[];
    const types = entries.map(({ leaf }) => typeOf(leaf));
    return types.filter((type) => type !== 'verdict.decided');
  };
  await eventually(`${atLeast} records of ${requestId}`, 60, async () =>
    (await typesNow()).length >= atLeast ? true : undefined,
  );
  // A second copy would come in the same batch or the next one.
  await sleep(1500);
  return (await typesNow()).sort();
}

before(async () => {
  setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  accountsUrl = address('SOMA_ACCOUNTS_URL', 'accountsUrl');
  auditUrl = address('SOMA_AUDIT_URL', 'auditUrl');
  agent = await tokenOf('acme-agent');
  // A login by device takes the 5 s between two questions for its token: not a part of what is timed below.
  await person('operator-1');
});

after(async () => {
  // Whatever a failed test has left.
  await operate('POST', '/v1/control/resume', because);
  for (const tenant of ['acme', 'globex']) {
    await operate('POST', `/v1/tenants/${tenant}/resume`, because);
    await operate('POST', `/v1/tenants/${tenant}/restore`, because);
  }
  await Promise.all([...people.values()].map((one) => logout(one).catch(() => undefined)));
});

describe('suspension', () => {
  it('of a tenant is effective at the gateway within a second, for nobody else, and is undone the same way', async (t) => {
    const other = await tokenOf('globex-agent');
    assert.equal((await call('/v1/sessions', { token: agent })).status, 200);
    const began = performance.now();
    const suspension = await operate('POST', '/v1/tenants/acme/suspend', because);
    assert.equal(suspension.status, 200, JSON.stringify(suspension.body));
    const effective = await untilGateway(agent, (status) => status === 403, began);
    const refused = await call('/v1/sessions', { token: agent });
    assert.equal(refused.body.type, 'urn:somagent:problem:suspended');
    assert.equal((await call('/v1/sessions', { token: other })).status, 200);
    const restoredAt = performance.now();
    assert.equal((await operate('POST', '/v1/tenants/acme/restore', because)).status, 200);
    const restored = await untilGateway(agent, (status) => status === 200, restoredAt);
    t.diagnostic(`suspended after ${Math.round(effective)} ms, restored after ${Math.round(restored)} ms`);
    assert.ok(effective <= 1000, `effective after ${effective} ms`);
    assert.deepEqual(await recorded(suspension.requestId, 1), ['tenant.suspended']);
  });

  it('of a person is effective at the gateway and at identity within a second, and stops new logins', async (t) => {
    // Keycloak follows a moment later: the tenant has just been restored.
    const token = await eventually('Keycloak admits the person', 90, () => person('acme-member-2'));
    const { sub } = decodeJwt(token);
    assert.equal((await call('/v1/sessions', { token })).status, 200);
    const admin = await person('acme-admin-1');
    const restore = () => ask(accountsUrl, admin, 'POST', `/v1/tenants/acme/users/${sub}/restore`, because);
    t.after(restore);
    const began = performance.now();
    const suspension = await ask(accountsUrl, admin, 'POST', `/v1/tenants/acme/users/${sub}/suspend`, because);
    assert.equal(suspension.status, 200, JSON.stringify(suspension.body));
    const effective = await untilGateway(token, (status) => status === 403, began);
    t.diagnostic(`effective after ${Math.round(effective)} ms`);
    assert.ok(effective <= 1000, `effective after ${effective} ms`);
    assert.equal((await ask(accountsUrl, token, 'GET', '/v1/tenants/acme')).status, 403);
    await assert.rejects(loginAs('acme-member-2'), 'Keycloak still admits the person');
    await restore();
    people.delete('acme-member-2');
    await eventually('Keycloak admits the person again', 90, () => person('acme-member-2'));
    assert.deepEqual(await recorded(suspension.requestId, 1), ['user.suspended']);
  });

  it('is no right of a tenant over another one', async () => {
    const admin = await person('globex-admin-1');
    assert.equal((await ask(accountsUrl, admin, 'POST', '/v1/tenants/acme/suspend', because)).status, 403);
    assert.equal((await call('/v1/sessions', { token: agent })).status, 200);
  });
});

it('a logout ends the tokens of the session, which have not expired', async () => {
  const member = await loginAs('acme-member-1');
  assert.equal((await call('/v1/sessions', { token: member.access })).status, 200);
  const began = performance.now();
  await logout(member);
  await untilGateway(member.access, (status) => status === 401, began);
});

it('an API key works within its scopes and stops everywhere at once', async (t) => {
  const admin = await person('acme-admin-1');
  const { sub } = decodeJwt(await person('acme-member-2'));
  const wish = { owner: sub, name: 'platform test', scopes: ['session:read'], days: 1 };
  const made = await ask(accountsUrl, admin, 'POST', '/v1/tenants/acme/api-keys', wish);
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const key: string = made.body.secret;
  assert.equal((await call('/v1/sessions', { token: key })).status, 200);
  assert.equal((await call('/v1/sessions', { method: 'POST', token: key, body: {} })).status, 403);
  const began = performance.now();
  const path = `/v1/tenants/acme/api-keys/${made.body.key.id}/revoke`;
  const revoked = await ask(accountsUrl, admin, 'POST', path, because);
  const effective = await untilGateway(key, (status) => status === 401, began);
  t.diagnostic(`revoked after ${Math.round(effective)} ms`);
  assert.ok(effective <= 1000, `effective after ${effective} ms`);
  assert.deepEqual(await recorded(made.requestId, 1), ['api-key.created']);
  assert.deepEqual(await recorded(revoked.requestId, 2), ['api-key.revoked', 'credential.revoked']);
});

it('training is unlocked by two people, never by one, and locked by one', async () => {
  const path = '/v1/tenants/acme/training';
  const as = async (name: string, method: string, rest: string, body?: unknown) =>
    ask(accountsUrl, await person(name), method, `${path}${rest}`, body);
  await as('acme-admin-1', 'POST', '/lock', because);
  const proposed = await as('acme-admin-1', 'POST', '/proposals', because);
  assert.equal(proposed.status, 200, JSON.stringify(proposed.body));
  const approval = `/proposals/${proposed.body.id}/approve`;
  const alone = await as('acme-admin-1', 'POST', approval);
  assert.deepEqual([alone.status, alone.body.type], [403, 'urn:somagent:problem:second-person']);
  assert.equal((await as('globex-admin-1', 'POST', approval)).status, 403);
  assert.equal((await as('acme-member-2', 'POST', approval)).status, 403);
  assert.equal((await as('acme-member-2', 'GET', '')).body.training, 'locked');
  const approved = await as('acme-admin-2', 'POST', approval);
  assert.deepEqual([approved.status, approved.body.training], [200, 'unlocked']);
  const locked = await as('acme-admin-2', 'POST', '/lock', because);
  assert.deepEqual([locked.status, locked.body.training], [200, 'locked']);
  assert.deepEqual(await recorded(proposed.requestId, 1), ['training.unlock-proposed']);
  assert.deepEqual(await recorded(approved.requestId, 1), ['training.unlocked']);
  assert.deepEqual(await recorded(locked.requestId, 1), ['training.locked']);
});

/** That it stops running work is seen in halt.test.ts. */
describe('the kill switch (docs/runbooks/kill-switch.md)', () => {
  for (const [what, path] of [
    ['everything', '/v1/control'],
    ['a tenant', '/v1/tenants/acme'],
  ] as const) {
    it(`for ${what} is recorded once, changes nothing when repeated, and is undone the same way`, async () => {
      const halt = await operate('POST', `${path}/halt`, because);
      assert.deepEqual([halt.status, halt.body], [200, { changed: true }]);
      assert.deepEqual((await operate('POST', `${path}/halt`, because)).body, { changed: false });
      const resume = await operate('POST', `${path}/resume`, because);
      assert.deepEqual([resume.status, resume.body], [200, { changed: true }]);
      assert.deepEqual(await recorded(halt.requestId, 1), ['control.halted']);
      assert.deepEqual(await recorded(resume.requestId, 1), ['control.resumed']);
    });
  }

  it('is no right of a tenant', async () => {
    const admin = await person('acme-admin-1');
    assert.equal((await ask(accountsUrl, admin, 'POST', '/v1/control/halt', because)).status, 403);
    assert.equal((await ask(accountsUrl, admin, 'POST', '/v1/tenants/acme/halt', because)).status, 403);
  });
});

it('Keycloak and the platform agree, and a difference made by hand is found', async () => {
  await operate('POST', '/v1/reconciliation');
  const agreed = await operate('GET', '/v1/reconciliation');
  assert.deepEqual(agreed.body.differences, []);
  const refused = await ask(accountsUrl, await person('acme-admin-1'), 'GET', '/v1/reconciliation');
  assert.equal(refused.status, 403);
});
