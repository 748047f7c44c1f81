/** Coverage of real servers: a governed one, and one to which a route was added past the declarations. */
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import { after, test } from 'node:test';
import { createAdaptorServer } from '@hono/node-server';
import { z } from '@hono/zod-openapi';
import { createLogger } from '@somagent/kit';
import { createLocalJWKSet } from 'jose';
import { createGovernedApp, type GovernedApp } from './app.ts';
import { TokenVerifier } from './authentication.ts';
import { type BareAnswer, type CoveredPod, coverageOf, sampleMethod, samplePath } from './coverage.ts';
import { commonResponses, declareRoute, json, openApiRoute } from './route.ts';

const readThing = declareRoute({
  method: 'get',
  path: '/v1/things/{id}',
  operationId: 'readThing',
  capability: 'thing:read',
  audit: 'read',
  request: { params: z.object({ id: z.string() }) },
  responses: { 200: json(z.object({ id: z.string() }), 'The thing'), ...commonResponses },
});
const capabilities = new Set(['thing:read', 'api:describe']);
const servers: Server[] = [];
after(() => {
  for (const server of servers) server.close();
});

/** Everything here is refused before the policy is asked. */
const unreached = () => {
  throw new Error('nobody comes here without a token');
};

function governed() {
  const recorded = new Set<string>();
  const app = createGovernedApp({
    service: 'things',
    title: 'Things',
    routes: { readThing, getOpenApi: openApiRoute },
    handlers: { readThing: (context) => context.json({ id: context.req.valid('param').id }, 200) },
    log: createLogger({ service: 'things', level: 'silent' }),
    authentication: {
      tokens: new TokenVerifier({ keys: createLocalJWKSet({ keys: [] }), rules: { issuer: 'x', audience: 'x' } }),
    },
    control: {
      ready: true,
      halted: unreached,
      suspended: unreached,
      revoked: unreached,
      training: unreached,
    },
    quota: { take: unreached },
    relations: { check: unreached },
    policy: { ready: true, revision: null, evaluate: unreached },
    verdicts: { accepting: true, record: ({ requestId }) => void recorded.add(requestId) },
  });
  return { app, recorded };
}

/** Asks a real server for each route that it lists, without a token. */
async function pod(fetchOf: GovernedApp['fetch'], routes: CoveredPod['routes']): Promise<CoveredPod> {
  const server = createAdaptorServer({ fetch: fetchOf, createServer }) as Server;
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  const answers: BareAnswer[] = [];
  for (const { method, path } of routes ?? []) {
    const response = await fetch(`http://127.0.0.1:${address.port}${samplePath(path)}`, {
      method: sampleMethod(method),
    });
    const body = (await response.json().catch(() => ({}))) as { type?: string };
    const requestId = response.headers.get('x-request-id');
    answers.push({ method, path, status: response.status, problem: body.type ?? null, requestId });
  }
  return { service: 'things', pod: 'things-0', routes, answers };
}

test('of a governed server every endpoint is protected', async () => {
  const { app, recorded } = governed();
  const report = coverageOf({ pods: [await pod(app.fetch, app.routes())], capabilities, recorded });
  assert.deepEqual(report, { endpoints: 2, protected: 2, gaps: [] });
});

test('a route that was added past the declarations is found, although it answers nobody', async () => {
  const { app, recorded } = governed();
  app.hono.get('/debug/:name', (context) => context.json({ secret: 'everything' }));
  const report = coverageOf({ pods: [await pod(app.fetch, app.routes())], capabilities, recorded });
  assert.deepEqual(report, {
    endpoints: 3,
    protected: 2,
    gaps: [
      {
        service: 'things',
        pod: 'things-0',
        endpoint: 'GET /debug/{name}',
        problems: ['it was added past declareRoute(): no capability, no audit class'],
      },
    ],
  });
});

test('a server that answers past governance is found by its answer', async () => {
  const { app, recorded } = governed();
  const open: GovernedApp['fetch'] = (request, env) =>
    new URL(request.url).pathname.startsWith('/v1/') ? Response.json({ id: 'open' }) : app.fetch(request, env);
  const { gaps } = coverageOf({ pods: [await pod(open, app.routes())], capabilities, recorded });
  assert.deepEqual(
    gaps.map(({ endpoint, problems }) => [endpoint, ...problems]),
    [['GET /v1/things/{id}', 'without a token it answers 200']],
  );
});

test('a refusal that nobody recorded, an unknown capability and a pod that lists nothing are gaps', async () => {
  const { app } = governed();
  const things = await pod(app.fetch, app.routes());
  const silent = { service: 'other', pod: 'other-0', routes: null, answers: [] };
  const report = coverageOf({
    pods: [things, silent],
    capabilities: new Set(['api:describe']),
    recorded: new Set(things.answers.slice(1).flatMap(({ requestId }) => requestId ?? [])),
  });
  assert.deepEqual([report.endpoints, report.protected], [3, 1]);
  assert.deepEqual(
    report.gaps.map(({ endpoint, problems }) => [endpoint, ...problems]),
    [
      ['GET /v1/things/{id}', 'the policy knows no capability thing:read', 'its refusal is not in the verdict log'],
      ['*', 'the pod serves an API and lists no routes'],
    ],
  );
});

test('a route whose server is gone is no protected one', () => {
  const routes = governed().app.routes();
  const { protected: count } = coverageOf({
    pods: [{ service: 'things', pod: 'things-0', routes, answers: [] }],
    capabilities,
    recorded: new Set(),
  });
  assert.equal(count, 0);
});
