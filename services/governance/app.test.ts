/**
 * The order of governance, what it asks its neighbours and how it refuses. What they decide is tested with the real ones
 * in their own rooms and in governed.test.ts.
 */
import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { z } from '@hono/zod-openapi';
import { createLogger } from '@somagent/kit';
import { createLocalJWKSet, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createGovernedApp, type GovernedAppOptions } from './app.ts';
import { TokenVerifier } from './authentication.ts';
import type { LimitReached, PolicyInput, VerdictRecord } from './neighbours.ts';
import { body, commonResponses, declareRoute, json, openApiRoute } from './route.ts';

const rules = { issuer: 'https://identity.test/realms/somagent', audience: 'somagent-gateway' };
const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] });
const sign = (claims: Record<string, unknown> = {}) =>
  new SignJWT({ sub: 'ann', azp: 'acme-agent', tenant: 'acme', roles: ['agent'], jti: 'j1', ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
    .setIssuer(rules.issuer)
    .setAudience(rules.audience)
    .setExpirationTime('1m')
    .sign(privateKey);
const token = await sign();

const thing = z.object({ id: z.uuid() });
const routes = {
  makeThing: declareRoute({
    method: 'post',
    path: '/v1/things',
    operationId: 'makeThing',
    capability: 'thing:create',
    audit: 'write',
    request: body(z.object({ name: z.string() }).strict()),
    responses: { 201: json(thing, 'The thing'), ...commonResponses },
  }),
  getThing: declareRoute({
    method: 'get',
    path: '/v1/things/{id}',
    operationId: 'getThing',
    capability: 'thing:read',
    audit: 'read',
    relation: { relation: 'can_view', object: ({ id }, { tenant }) => `thing:${tenant}/${id}` },
    request: { params: thing },
    responses: { 200: json(thing, 'The thing'), ...commonResponses },
  }),
  getOpenApi: openApiRoute,
};
type Options = GovernedAppOptions<typeof routes>;
const thingId = '0190a6d3-1c2b-4d3e-8f4a-5b6c7d8e9f00';

/** Decides what the test says, and keeps what it was asked. */
function governed(changes: Partial<Options> = {}) {
  const inputs: PolicyInput[] = [];
  const verdicts: VerdictRecord[] = [];
  const lines: Record<string, unknown>[] = [];
  const destination = new Writable({
    write(line: Buffer, _, done) {
      lines.push(JSON.parse(line.toString()));
      done();
    },
  });
  const app = createGovernedApp({
    service: 'things',
    title: 'Things',
    routes,
    log: createLogger({ service: 'things', level: 'info', destination }),
    authentication: { tokens: new TokenVerifier({ keys, rules }) },
    control: {
      ready: true,
      halted: () => false,
      suspended: () => null,
      revoked: () => false,
      training: () => 'locked',
    },
    quota: { take: () => null },
    relations: { check: async () => ({ held: true, ageMs: 0 }) },
    policy: {
      ready: true,
      revision: 'r1',
      evaluate: (_, input) => {
        inputs.push(input);
        return { allow: true, rule: 'soma.gateway.allow_by_role', reasons: ['a role has it'] };
      },
    },
    verdicts: { accepting: true, record: (verdict) => void verdicts.push(verdict) },
    handlers: {
      makeThing: (context) => context.json({ id: thingId }, 201),
      getThing: (context) => context.json({ id: context.req.valid('param').id }, 200),
    },
    ...changes,
  });
  const ask = async (path: string, init: RequestInit = {}, bearer: string | null = token) => {
    const headers = { ...(bearer && { authorization: `Bearer ${bearer}` }), ...init.headers };
    const response = await app.fetch(new Request(`https://things.test${path}`, { ...init, headers }));
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) };
  };
  return { app, ask, inputs, verdicts, lines };
}

/** A name of two bytes that are no character. */
const notUtf8 = Buffer.from('7b226e616d65223a22fffe227d', 'hex');

const post = (value: unknown, headers: Record<string, string> = {}) => ({
  method: 'POST',
  body: typeof value === 'string' ? value : JSON.stringify(value),
  headers: { 'content-type': 'application/json', ...headers },
});

test('an allowed request reaches its handler, and its verdict says who, what, on what, by which rule', async () => {
  const { ask, inputs, verdicts, lines } = governed();
  const answer = await ask(`/v1/things/${thingId}`);
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body, { id: thingId });
  const requestId = answer.headers.get('x-request-id');
  const [input] = inputs;
  assert.deepEqual(input, {
    subject: {
      kind: 'user',
      tenant: 'acme',
      id: 'ann',
      roles: ['agent'],
      teams: [],
      client: 'acme-agent',
      scopes: null,
    },
    action: { service: 'things', route: 'getThing', method: 'GET', capability: 'thing:read', audit: 'read' },
    resource: { tenant: 'acme', type: 'thing', id: thingId },
    relation: { required: 'can_view', held: true },
    control: { halted: false, suspended: null, revoked: false, training: 'locked' },
    context: { time: input?.context.time, requestId },
  });
  const [verdict] = verdicts;
  assert.equal(verdicts.length, 1);
  assert.ok(verdict && verdict.latencyUs > 0 && verdict.latencyUs < 1e6);
  assert.deepEqual(verdict, {
    time: verdict.time,
    requestId,
    tenant: 'acme',
    actor: { kind: 'user', id: 'ann', client: 'acme-agent' },
    service: 'things',
    route: 'getThing',
    method: 'GET',
    path: '/v1/things/{id}',
    capability: 'thing:read',
    resource: { type: 'thing', id: thingId },
    allow: true,
    rule: 'soma.gateway.allow_by_role',
    reasons: ['a role has it'],
    revision: 'r1',
    latencyUs: verdict.latencyUs,
    status: null,
    input,
  });
  assert.equal(lines.length, 1);
  const { requestId: logged, tenant, subject, status, route } = lines[0] ?? {};
  assert.deepEqual([logged, tenant, subject, status, route], [requestId, 'acme', 'ann', 200, 'getThing']);
  assert.equal(JSON.stringify(lines).includes(token), false);
  assert.equal(answer.headers.get('x-frame-options'), 'SAMEORIGIN');
});

const reached: LimitReached = { limit: 'at most 2 requests in 60 s', retryAfterSeconds: 7 };
const control = {
  ready: true,
  halted: () => false,
  suspended: () => null,
  revoked: () => false,
  training: () => 'locked' as const,
};
const denying = (rule: string) => ({
  ready: true,
  revision: 'r1',
  evaluate: () => ({ allow: false, rule, reasons: ['because'] }),
});
const rejecting = () => Promise.reject(new Error('away'));
const away = () => {
  throw new Error('no bundle');
};

interface Refusal {
  readonly name: string;
  readonly changes?: Partial<Options>;
  readonly path?: string;
  readonly init?: RequestInit;
  readonly bearer?: string | null;
  readonly status: number;
  readonly type: string;
  /** @default soma.governance.<type> */
  readonly rule?: string;
}
const refusals: readonly Refusal[] = [
  { name: 'without a token', bearer: null, status: 401, type: 'token-missing' },
  { name: 'with a forged token', bearer: `${token.slice(0, -6)}AAAAAA`, status: 401, type: 'token-invalid' },
  { name: 'without a tenant', bearer: await sign({ tenant: undefined }), status: 403, type: 'tenant-missing' },
  {
    name: 'with a revoked token',
    changes: { control: { ...control, revoked: ({ jti }) => jti === 'j1' } },
    status: 401,
    type: 'token-revoked',
  },
  {
    name: 'of a suspended user',
    changes: {
      control: { ...control, suspended: (tenant, subject) => (`${tenant}/${subject}` === 'acme/ann' ? 'user' : null) },
    },
    status: 403,
    type: 'suspended',
  },
  {
    name: 'before the control state is known',
    changes: { control: { ...control, ready: false } },
    status: 503,
    type: 'unavailable',
  },
  { name: 'over a limit', changes: { quota: { take: async () => reached } }, status: 429, type: 'rate-limited' },
  { name: 'for a route that nobody declared', path: '/v1/nothing', status: 404, type: 'not-found' },
  {
    name: 'for a route that nobody declared, without a token',
    path: '/v1/nothing',
    bearer: null,
    status: 401,
    type: 'token-missing',
  },
  {
    name: 'with a body that is not JSON',
    path: '/v1/things',
    init: post('a=b', { 'content-type': 'text/plain', 'content-length': '3' }),
    status: 415,
    type: 'media-type',
  },
  {
    name: 'with a body that is too large',
    path: '/v1/things',
    init: post({ name: 'x'.repeat(70_000) }, { 'content-length': '70011' }),
    status: 413,
    type: 'body-too-large',
  },
  {
    name: 'with a body that is announced as too large and does not come',
    path: '/v1/things',
    init: {
      ...post(''),
      body: new ReadableStream(),
      headers: { 'content-type': 'application/json', 'content-length': '70011' },
      duplex: 'half',
    },
    status: 413,
    type: 'body-too-large',
  },
  {
    name: 'with a body in chunks that is too large',
    path: '/v1/things',
    init: post({ name: 'x'.repeat(70_000) }, { 'transfer-encoding': 'chunked' }),
    status: 413,
    type: 'body-too-large',
  },
  {
    name: 'with a body that is not UTF-8',
    path: '/v1/things',
    init: {
      ...post(''),
      body: notUtf8,
      headers: { 'content-type': 'application/json', 'content-length': String(notUtf8.length) },
    },
    status: 400,
    type: 'invalid-request',
  },
  {
    name: 'with a field that is not in the schema',
    path: '/v1/things',
    init: post({ name: 'a', tenant: 'b' }, { 'content-length': '25' }),
    status: 400,
    type: 'invalid-request',
  },
  { name: 'with a malformed id', path: '/v1/things/1', status: 400, type: 'invalid-request' },
  {
    name: 'without the relation',
    changes: {
      relations: { check: async () => ({ held: false, ageMs: 0 }) },
      policy: denying('soma.gateway.deny_relation'),
    },
    status: 404,
    type: 'not-found',
    rule: 'soma.gateway.deny_relation',
  },
  { name: 'while OpenFGA is away', changes: { relations: { check: rejecting } }, status: 503, type: 'unavailable' },
  {
    name: 'that the policy denies',
    changes: { policy: denying('soma.gateway.deny_by_default') },
    status: 403,
    type: 'forbidden',
    rule: 'soma.gateway.deny_by_default',
  },
  {
    name: 'while agent work is halted',
    changes: { policy: denying('soma.gateway.deny_halted') },
    status: 423,
    type: 'halted',
    rule: 'soma.gateway.deny_halted',
  },
  {
    name: 'without a bundle',
    changes: { policy: { ready: false, revision: null, evaluate: away } },
    status: 503,
    type: 'unavailable',
  },
];

for (const { name, changes, path = `/v1/things/${thingId}`, init, bearer = token, status, type, rule } of refusals) {
  test(`a request ${name} is refused with ${status}, and that is a recorded verdict`, async () => {
    let handled = false;
    const handler = () => {
      handled = true;
      return Response.json({});
    };
    const { ask, verdicts } = governed({ handlers: { makeThing: handler, getThing: handler } as never, ...changes });
    const answer = await ask(path, init, bearer);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    assert.equal(answer.body.type, `urn:somagent:problem:${type}`);
    assert.equal(handled, false);
    assert.equal(verdicts.length, 1);
    const [verdict] = verdicts;
    const said = [verdict?.allow, verdict?.rule, verdict?.status, verdict?.requestId];
    assert.deepEqual(said, [
      false,
      rule ?? `soma.governance.${type.replaceAll('-', '_')}`,
      status,
      answer.body.requestId,
    ]);
    if (status === 429) assert.equal(answer.headers.get('retry-after'), '7');
    if (status === 401) assert.match(answer.headers.get('www-authenticate') ?? '', /^Bearer/);
  });
}

test('a route may take larger bodies and show every refusal in its own form', async () => {
  const makeThing = declareRoute({
    method: 'post',
    path: '/v1/things',
    operationId: 'makeThing',
    capability: 'thing:create',
    audit: 'write',
    bodyLimit: 100_000,
    showProblem: ({ type, field = null, status }, requestId) => Response.json({ type, field, requestId }, { status }),
    request: body(z.object({ name: z.string() }).strict()),
    responses: { 201: json(thing, 'The thing'), ...commonResponses },
  });
  const { ask, verdicts } = governed({ routes: { ...routes, makeThing } });
  const named = (length: number) => {
    const sent = JSON.stringify({ name: 'x'.repeat(length) });
    return post(sent, { 'content-length': String(sent.length) });
  };
  assert.equal((await ask('/v1/things', named(80_000))).status, 201);
  const refused = [
    [await ask('/v1/things', named(100_000)), 413, 'body-too-large', null],
    [await ask('/v1/things', named(1), null), 401, 'token-missing', null],
    [await ask('/v1/things', post('{"name":1}', { 'content-length': '10' })), 400, 'invalid-request', 'name'],
  ] as const;
  for (const [answer, status, type, field] of refused) {
    const { requestId } = answer.body;
    assert.deepEqual([answer.status, answer.body], [status, { type, field, requestId }]);
    assert.equal(verdicts.find((verdict) => verdict.requestId === requestId)?.status, status);
  }
  assert.equal((await ask('/v1/things/1')).body.type, 'urn:somagent:problem:invalid-request', 'others keep theirs');
});

test('while verdicts cannot be recorded, nothing is served', async () => {
  const { ask } = governed({ verdicts: { accepting: false, record: () => undefined } });
  assert.equal((await ask(`/v1/things/${thingId}`)).status, 503);
});

test('a failure of the handler is no second verdict and shows nothing of itself', async () => {
  const failing = () => {
    throw new Error('the password is hunter2');
  };
  const { ask, verdicts } = governed({ handlers: { makeThing: failing, getThing: failing } });
  const answer = await ask(`/v1/things/${thingId}`);
  assert.equal(answer.status, 500);
  assert.equal(JSON.stringify(answer.body).includes('hunter2'), false);
  assert.deepEqual(
    verdicts.map(({ allow }) => allow),
    [true],
  );
});

test('relation and policy are not asked before the request is whole', async () => {
  const asked: string[] = [];
  const { ask, inputs } = governed({
    relations: {
      check: async (_subject, _relation, object) => {
        asked.push(object);
        return { held: true, ageMs: 0 };
      },
    },
  });
  await ask('/v1/things/1');
  assert.deepEqual([asked, inputs], [[], []]);
  await ask(`/v1/things/${thingId}`);
  assert.deepEqual(asked, [`thing:acme/${thingId}`]);
});

test('an application cannot be made without what governs it', () => {
  const needed = ['authentication', 'control', 'quota', 'relations', 'policy', 'verdicts'] as const;
  for (const name of needed) {
    assert.throws(() => governed({ [name]: undefined }), new RegExp(`needs ${name}`));
  }
  const undeclared = { ...routes, getThing: { ...routes.getThing } };
  assert.throws(() => governed({ routes: undeclared as never }), /not declared by declareRoute/);
  assert.throws(() => governed({ handlers: {} as never }), /route makeThing has no handler/);
});

test('a capability that is none is refused at the declaration', () => {
  const { operationId, responses } = { operationId: 'x', responses: commonResponses };
  const declaration = { method: 'get', path: '/x', operationId, responses, audit: 'none' } as const;
  assert.throws(() => declareRoute({ ...declaration, capability: 'read' }), /route x: capability is "read"/);
});

test('the OpenAPI document comes from the declarations, with capability, audit class and relation', async () => {
  const { body: document } = await governed().ask('/openapi.json');
  assert.deepEqual(Object.keys(document.paths), ['/v1/things', '/v1/things/{id}', '/openapi.json']);
  const { get } = document.paths['/v1/things/{id}'];
  assert.deepEqual(get['x-capability'], 'thing:read');
  assert.deepEqual([get['x-audit'], get['x-relation'], get.capability], ['read', 'can_view', undefined]);
  assert.deepEqual(get.security, [{ bearer: [] }]);
});

test('a route added past the declarations is listed without a capability, and answers nobody', async () => {
  const { app, ask, verdicts } = governed();
  const declared = app.routes();
  assert.deepEqual(declared, [
    {
      method: 'POST',
      path: '/v1/things',
      operationId: 'makeThing',
      capability: 'thing:create',
      relation: null,
      audit: 'write',
    },
    {
      method: 'GET',
      path: '/v1/things/{id}',
      operationId: 'getThing',
      capability: 'thing:read',
      relation: 'can_view',
      audit: 'read',
    },
    {
      method: 'GET',
      path: '/openapi.json',
      operationId: 'getOpenApi',
      capability: 'api:describe',
      relation: null,
      audit: 'none',
    },
  ]);
  app.hono.get('/debug/:name', (context) => context.json({ environment: 'all of it' }));
  const planted = {
    method: 'GET',
    path: '/debug/{name}',
    operationId: null,
    capability: null,
    relation: null,
    audit: null,
  };
  assert.deepEqual(app.routes(), [...declared, planted]);
  const answer = await ask('/debug/env');
  assert.deepEqual([answer.status, verdicts[0]?.route, verdicts[0]?.allow], [404, 'undeclared', false]);
  assert.equal((await ask('/debug/env', {}, null)).status, 401);
});
