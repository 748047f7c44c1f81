/**
 * A governed server with its real neighbours: identity service with control feed, OpenFGA, the corpus of policies, and
 * Postgres, over HTTPS.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from '@hono/zod-openapi';
import { type ReceivedSpan, startCollector } from '@somagent/bootstrap/testing/otel-collector.ts';
import { tenantGaps } from '@somagent/bootstrap/testing/tenant-gaps.ts';
import { Accounts } from '@somagent/identity/accounts.ts';
import { Ledger, ownWork } from '@somagent/identity/ledger.ts';
import { issuer, type Replica, TestService } from '@somagent/identity/testing/service.ts';
import { ControlState, createLogger, fetchTrusting, startTracing, stopTracing } from '@somagent/kit';
import { startTestPolicy } from '@somagent/policies/testing.ts';
import type { PolicyEngine } from '@somagent/policy';
import { ensureModel, locateModel, objectOf, RelationChecker, type Tuple, userOf } from '@somagent/relations';
import { hasOpenFga, startOpenFga, type TestOpenFga } from '@somagent/relations/testing/openfga.ts';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { IdentityApiKeys } from './api-keys.ts';
import { createGovernedApp } from './app.ts';
import { TokenVerifier } from './authentication.ts';
import type { VerdictRecord } from './neighbours.ts';
import { body, commonResponses, declareRoute, json, openApiRoute } from './route.ts';
import { type GovernedServer, serveGoverned } from './server.ts';
import { followStanding, type Standing } from './standing.ts';

const rules = { issuer, audience: 'somagent-gateway' };
const log = createLogger({ service: 'test', level: 'silent' });
const sessionId = '0190a6d3-1c2b-4d3e-8f4a-5b6c7d8e9f00';
const session = z.object({ id: z.uuid() });
const toSession = (relation: string) => ({
  relation,
  object: ({ id = '' }: Readonly<Record<string, string>>, { tenant }: { readonly tenant: string }) =>
    objectOf('session', tenant, id),
});
const routes = {
  getSession: declareRoute({
    method: 'get',
    path: '/v1/sessions/{id}',
    operationId: 'getSession',
    capability: 'session:read',
    audit: 'read',
    relation: toSession('can_view'),
    request: { params: session },
    responses: { 200: json(session, 'The session'), ...commonResponses },
  }),
  createTurn: declareRoute({
    method: 'post',
    path: '/v1/sessions/{id}/turns',
    operationId: 'createTurn',
    capability: 'session:turn',
    audit: 'write',
    relation: toSession('can_use'),
    request: { params: session, ...body(z.object({ prompt: z.string() })) },
    responses: { 200: json(session, 'The session'), ...commonResponses },
  }),
  getOpenApi: openApiRoute,
};

const people = {
  owner: { sub: 'mary', tenant: 'acme', roles: ['agent'], teams: ['blue'] },
  mate: { sub: 'mike', tenant: 'acme', roles: ['member'], teams: ['blue'] },
  colleague: { sub: 'carl', tenant: 'acme', roles: ['member'], teams: ['red'] },
  auditor: { sub: 'otto', tenant: 'acme', roles: ['auditor'], teams: [] },
  stranger: { sub: 'gina', tenant: 'globex', roles: ['agent'], teams: ['blue'] },
};
type Who = keyof typeof people;

describe('a governed server and its neighbours', {
  skip: !hasOpenFga() && 'OpenFGA is not built',
  timeout: 120_000,
}, () => {
  let folder: string;
  let service: TestService;
  let replica: Replica;
  let openfga: TestOpenFga;
  let policy: PolicyEngine;
  let control: ControlState;
  let server: GovernedServer;
  let trusting: typeof fetch;
  let sign: (claims: Record<string, unknown>) => Promise<string>;
  const verdicts: VerdictRecord[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'somagent-governed-'));
    [service, openfga] = await Promise.all([TestService.start(), startOpenFga()]);
    replica = await service.replica();
    trusting = fetchTrusting(service.caFile);
    await Promise.all([prepareAccounts(), prepareRelations(), preparePolicy()]);
    await serve();
  });
  after(async () => {
    await server?.drain(1000);
    await Promise.all([control?.stop(), policy?.stop()]);
    await Promise.all([service?.stop(), openfga?.stop()]);
    await rm(folder, { recursive: true, force: true });
  });

  async function prepareAccounts(): Promise<void> {
    const database = service.database.database;
    for (const tenant of ['acme', 'globex']) {
      await database.of(tenant).insertInto('tenant').values({ tenant, display_name: tenant }).execute();
    }
    const accounts = new Accounts(new Ledger(database), database);
    const mary = { id: 'mary', kind: 'user' as const, username: 'mary', email: null, roles: ['agent'], teams: [] };
    await accounts.put(ownWork('test'), 'acme', mary);
  }

  async function prepareRelations(): Promise<void> {
    const { store, model } = await ensureModel(openfga.client);
    const acme = (subject: string) => userOf({ tenant: 'acme', subject });
    const object = objectOf('session', 'acme', sessionId);
    const [blue, red] = [objectOf('team', 'acme', 'blue'), objectOf('team', 'acme', 'red')];
    const facts: Tuple[] = [
      ...['mary', 'mike', 'carl', 'otto'].map((name) => ({
        user: acme(name),
        relation: 'member',
        object: 'tenant:acme',
      })),
      { user: userOf({ tenant: 'globex', subject: 'gina' }), relation: 'member', object: 'tenant:globex' },
      { user: acme('otto'), relation: 'auditor', object: 'tenant:acme' },
      { user: 'tenant:acme', relation: 'tenant', object },
      { user: acme('mary'), relation: 'owner', object },
      { user: blue, relation: 'team', object },
      { user: acme('mike'), relation: 'member', object: blue },
      { user: acme('carl'), relation: 'member', object: red },
      ...[blue, red].map((team) => ({ user: 'tenant:acme', relation: 'tenant', object: team })),
    ];
    await openfga.client.write(store, model, facts, []);
  }

  async function preparePolicy(): Promise<void> {
    policy = await startTestPolicy(folder);
  }

  async function serve(): Promise<void> {
    const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
    const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'RS256' }] });
    sign = (claims) =>
      new SignJWT({ azp: 'acme-agent', typ: 'Bearer', ...claims })
        .setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: 'JWT' })
        .setIssuer(rules.issuer)
        .setAudience(rules.audience)
        .setExpirationTime('5m')
        .sign(privateKey);
    const identity = {
      url: replica.url,
      caFile: service.caFile,
      tokenFile: await service.workloadFile('gateway'),
      log,
    };
    control = new ControlState(identity);
    control.start();
    const app = createGovernedApp({
      service: 'gateway',
      title: 'Sessions',
      routes,
      handlers: {
        getSession: (context) => context.json(context.req.valid('param'), 200),
        createTurn: (context) => context.json(context.req.valid('param'), 200),
      },
      authentication: { tokens: new TokenVerifier({ keys, rules }), apiKeys: new IdentityApiKeys(identity) },
      control,
      quota: { take: () => null },
      relations: new RelationChecker({ client: openfga.client, locate: () => locateModel(openfga.client) }),
      policy,
      verdicts: { accepting: true, record: (verdict) => void verdicts.push(verdict) },
      log,
    });
    server = await serveGoverned({ app, port: 0, host: '127.0.0.1', tlsDirectory: dirname(service.caFile), log });
    await until(() => control.ready, 'the control state is known');
  }

  /** Asks with a credential; `turn` writes, `read` reads. @returns status, type of the problem, rule of the verdict */
  async function ask(
    action: 'read' | 'turn',
    bearer: string,
    more: Readonly<Record<string, string>> = {},
  ): Promise<[number, string | null, string]> {
    const turn = { method: 'POST', body: JSON.stringify({ prompt: 'Hello' }) };
    const path = `/v1/sessions/${sessionId}${action === 'turn' ? '/turns' : ''}`;
    const response = await trusting(`https://127.0.0.1:${server.port}${path}`, {
      ...(action === 'turn' && turn),
      headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json', ...more },
    });
    const { type = null } = (await response.json()) as { type?: string };
    const requestId = response.headers.get('x-request-id');
    const rule = verdicts.find((verdict) => verdict.requestId === requestId)?.rule ?? 'none';
    return [response.status, type?.replace('urn:somagent:problem:', '') ?? null, rule];
  }
  const as = async (who: Who, action: 'read' | 'turn') => ask(action, await sign(people[who]));

  /** Asks the identity service as an operator. */
  async function operate(path: string, content: object): Promise<Record<string, Record<string, string>>> {
    const token = await service.token({ sub: 'olga', roles: ['operator'] });
    const response = await trusting(`${replica.url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(content),
    });
    assert.ok(response.ok, `${path}: ${response.status}`);
    return response.json() as Promise<Record<string, Record<string, string>>>;
  }

  async function until(condition: () => unknown, what: string): Promise<void> {
    const end = performance.now() + 10_000;
    while (!(await condition())) {
      assert.ok(performance.now() < end, `${what}: not within 10 s`);
      await sleep(20);
    }
  }
  const becomes = (status: number, action: 'read' | 'turn', bearer: string) =>
    until(async () => (await ask(action, bearer))[0] === status, `${action} is answered with ${status}`);

  it('lets owner and team work, the auditor look, and nobody else see that the session exists', async () => {
    const allowed = [200, null, 'soma.gateway.allow_by_role'];
    const hidden = [404, 'not-found', 'soma.gateway.deny_relation'];
    assert.deepEqual(await as('owner', 'turn'), allowed);
    assert.deepEqual(await as('mate', 'turn'), allowed);
    assert.deepEqual(await as('auditor', 'read'), allowed);
    assert.deepEqual(await as('auditor', 'turn'), hidden);
    assert.deepEqual(await as('colleague', 'read'), hidden);
    assert.deepEqual(await as('stranger', 'read'), hidden);
  });

  it('traces each request with its tenant, subject and decision, and lets no stranger into a trace of ours', async () => {
    const collector = await startCollector();
    const theirs = '4bf92f3577b34da6a3ce929d0e0e4736';
    const sent = { traceparent: `00-${theirs}-00f067aa0ba902b7-01`, baggage: 'soma.tenant=globex,other=secret' };
    try {
      startTracing('gateway', log, {
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        OTEL_EXPORTER_OTLP_CERTIFICATE: collector.caFile,
      });
      await ask('turn', await sign(people.owner), sent);
      await as('stranger', 'read');
      await ask('read', 'not-a-token', sent);
      // Not asked before, so OpenFGA has to be.
      await as('colleague', 'turn');
    } finally {
      await stopTracing();
      await until(() => collector.spans().length >= 11, 'the spans have come');
      await collector.stop();
    }
    const spans = collector.spans();
    const requests = spans.filter(({ name }) => /^(GET|POST) \/v1/.test(name));
    const said = requests.map(({ attributes }) =>
      ['tenant', 'subject', 'decision', 'rule'].map((name) => attributes[`soma.${name}`]),
    );
    assert.deepEqual(said, [
      ['acme', 'mary', 'allow', 'soma.gateway.allow_by_role'],
      ['globex', 'gina', 'deny', 'soma.gateway.deny_relation'],
      ['platform', 'anonymous', 'deny', 'soma.governance.token_invalid'],
      ['acme', 'carl', 'deny', 'soma.gateway.deny_relation'],
    ]);
    const [allowed] = requests as [ReceivedSpan];
    assert.equal(allowed.attributes['http.route'], '/v1/sessions/{id}/turns');
    assert.ok(verdicts.some(({ requestId }) => requestId === allowed.attributes['soma.request_id']));
    const within = spans.filter(({ parentId }) => parentId === allowed.spanId).map(({ name }) => name);
    assert.deepEqual(within.sort(), ['policy soma/gateway/verdict', 'relation can_use']);
    const relation = spans.find(({ parentId }) => parentId === requests[3]?.spanId);
    assert.equal(relation?.name, 'relation can_use');
    assert.ok(
      spans.some(({ parentId, name }) => parentId === relation?.spanId && name.startsWith('POST ')),
      'OpenFGA',
    );
    assert.deepEqual(tenantGaps(spans), []);
    assert.ok(spans.every(({ traceId }) => traceId !== theirs));
    assert.deepEqual(allowed.links, [theirs]);
    assert.doesNotMatch(JSON.stringify(spans), /secret|not-a-token/);
  });

  it('stops agent work of a halted tenant and lets it look, until the halt is undone', async () => {
    const owner = await sign(people.owner);
    await operate('/v1/tenants/acme/halt', { reason: 'of this test' });
    await becomes(423, 'turn', owner);
    assert.deepEqual(await ask('turn', owner), [423, 'halted', 'soma.gateway.deny_halted']);
    assert.equal((await ask('read', owner))[0], 200);
    await operate('/v1/tenants/acme/resume', { reason: 'of this test' });
    await becomes(200, 'turn', owner);
  });

  it('refuses a token that was verified a moment ago once it is revoked', async () => {
    const token = await sign({ ...people.owner, jti: 'one-token' });
    assert.equal((await ask('read', token))[0], 200);
    await operate('/v1/tenants/acme/revocations', { kind: 'token', id: 'one-token', reason: 'of this test' });
    await becomes(401, 'read', token);
    assert.deepEqual(await ask('read', token), [401, 'token-revoked', 'soma.governance.token_revoked']);
    assert.equal((await as('owner', 'read'))[0], 200, 'and no other one');
  });

  it('admits an API key within its scopes, until it is revoked', async () => {
    const { key, secret } = await operate('/v1/tenants/acme/api-keys', {
      owner: 'mary',
      name: 'for reading',
      scopes: ['session:read'],
    });
    const bearer = String(secret);
    assert.deepEqual(await ask('read', bearer), [200, null, 'soma.gateway.allow_by_role']);
    assert.deepEqual(await ask('turn', bearer), [403, 'forbidden', 'soma.gateway.deny_scope']);
    assert.equal((await ask('read', `${bearer.slice(0, -1)}${bearer.endsWith('0') ? '1' : '0'}`))[0], 401);
    await operate(`/v1/tenants/acme/api-keys/${key?.id}/revoke`, { reason: 'of this test' });
    await becomes(401, 'read', bearer);
  });

  it('refuses a suspended person, and the whole of a suspended tenant', async () => {
    const [owner, mate] = [await sign(people.owner), await sign(people.mate)];
    const [marys, mikes] = [people.owner, people.mate].map(({ sub, tenant, roles, teams }) =>
      followStanding(control, {
        ...{ kind: 'user', tenant, subject: sub, roles, teams },
        ...{ client: null, scopes: null, revocable: {} },
      }),
    ) as [Standing, Standing];
    await operate('/v1/tenants/acme/users/mary/suspend', { reason: 'of this test' });
    await becomes(403, 'read', owner);
    await until(() => marys.signal.aborted, 'an open answer to mary is told');
    assert.equal(mikes.signal.aborted, false);
    assert.equal((await ask('read', mate))[0], 200);
    await operate('/v1/tenants/acme/suspend', { reason: 'of this test' });
    await becomes(403, 'read', mate);
    await until(() => mikes.signal.aborted, 'an open answer to mike is told');
    for (const standing of [marys, mikes]) standing.release();
    assert.deepEqual(await ask('read', mate), [403, 'suspended', 'soma.governance.suspended']);
    await operate('/v1/tenants/acme/restore', { reason: 'of this test' });
    await operate('/v1/tenants/acme/users/mary/restore', { reason: 'of this test' });
    await becomes(200, 'read', owner);
  });

  it('goes on reading and refuses to write while OpenFGA is away', async () => {
    const owner = await sign(people.owner);
    assert.equal((await ask('turn', owner))[0], 200);
    await openfga.pause();
    await becomes(503, 'turn', owner);
    assert.equal((await ask('read', owner))[0], 200);
  });
});
