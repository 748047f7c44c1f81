/**
 * The probe on the real memory service, by the routes that it declares itself: nothing is found in the healthy one, and
 * each planted fault is found, by the kind of leak that it is.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { fetchTrusting } from '@somagent/kit';
import { Forgetter } from '@somagent/memory-gateway/forget.ts';
import { Memories } from '@somagent/memory-gateway/memories.ts';
import { Recall } from '@somagent/memory-gateway/recall.ts';
import { by, quiet } from '@somagent/memory-gateway/testing/database.ts';
import { startMemoryService, type TestMemoryService } from '@somagent/memory-gateway/testing/service.ts';
import { tenantObject, userOf } from '@somagent/relations';
import { hasOpenFga } from '@somagent/relations/testing/openfga.ts';
import { type ApiDocument, routesOfDocument } from './document.ts';
import { type MemoryTenant, tenantWithMemories } from './memory.ts';
import { type Leak, type ProbeReport, type ProbeRoute, type Received, type Sent, TenancyProbe } from './probe.ts';

type Answer = (request: Request, next: () => Promise<Response>, caller: string) => Promise<Response>;

const skip = !hasOpenFga() && 'OpenFGA is not built';
let service: TestMemoryService;
let tenants: readonly MemoryTenant[];
let routes: readonly ProbeRoute[];
let fault: Answer | undefined;

/** The tenant that a token says, as a careless service would read it. */
const callerOf = (request: Request): string => {
  const [, claims = ''] = (request.headers.get('authorization') ?? '').split('.');
  return (JSON.parse(Buffer.from(claims, 'base64url').toString() || '{}') as { tenant?: string }).tenant ?? '';
};

before(async () => {
  if (skip) return;
  const noSummary = { summarize: () => Promise.reject(new Error('no model here')) };
  service = await startMemoryService(noSummary, (healthy) => async (request, env) => {
    const next = async () => healthy(request, env);
    return fault === undefined ? next() : fault(request, next, callerOf(request));
  });
  const made: MemoryTenant[] = [];
  for (const name of ['acme', 'globex']) {
    const subject = randomUUID();
    await service.relate([{ user: userOf({ tenant: name, subject }), relation: 'member', object: tenantObject(name) }]);
    const token = await service.token({ sub: subject, tenant: name, roles: ['member'], teams: [] });
    const mine = sender(token);
    made.push(await tenantWithMemories({ name, subject, sessions: [randomUUID()], send: mine }));
  }
  tenants = made;
  const [first] = made;
  const document = await first?.send({ method: 'GET', path: '/openapi.json', headers: {} });
  routes = routesOfDocument(JSON.parse(document?.body ?? '{}') as ApiDocument);
});
after(() => service?.stop());

/** Sends with a token. */
function sender(token: string): (sent: Sent) => Promise<Received> {
  const fetch = fetchTrusting(service.caFile);
  return async ({ method, path, headers, body }) => {
    const response = await fetch(`${service.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return { status: response.status, headers: Object.fromEntries(response.headers), body: text };
  };
}

async function probe(planted?: Answer): Promise<ProbeReport> {
  fault = planted;
  try {
    // Answer times of a crowded machine say nothing; those of the gateway are compared on the platform.
    return await new TenancyProbe({ routes, tenants, timed: () => false }).run();
  } finally {
    fault = undefined;
  }
}

const victimOf = (text: string, caller: string): MemoryTenant | undefined =>
  tenants.find(({ name, owns }) => name !== caller && owns.some((value) => text.includes(value)));

const json = (body: unknown, status = 200) =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } });

/** Recalls whatever a tenant has, and asks nobody whose it is. */
function recallAll(tenant: string, query: string) {
  const { database } = service.database;
  const recall = new Recall({ database, memories: new Memories(database), ...service.stores, log: quiet });
  return recall.recall({ scope: { tenant, visible: { whole: true }, filter: {} }, query, limit: 10, deadlineMs: 1 });
}

const isRecall = ({ url }: Request) => url.endsWith('/recall');

const faults: readonly { readonly name: string; readonly kind: Leak['kind']; readonly answer: () => Answer }[] = [
  {
    name: 'a recall believes a header that names another tenant',
    kind: 'content',
    answer: () => async (request, next) => {
      const named = request.headers.get('x-tenant');
      if (!isRecall(request) || named === null) return next();
      const { query = '' } = (await request.clone().json()) as { query?: string };
      return json(await recallAll(named, query));
    },
  },
  {
    name: 'a filter by owner is taken without asking whose it is',
    kind: 'content',
    answer: () => async (request, next, caller) => {
      const text = isRecall(request) ? await request.clone().text() : '';
      const { filter } = (text ? JSON.parse(text) : {}) as { filter?: { owner?: string } };
      const victim = filter?.owner === undefined ? undefined : victimOf(filter.owner, caller);
      return victim === undefined ? next() : json(await recallAll(victim.name, victim.lure));
    },
  },
  {
    name: 'answers of recall are kept by the question alone',
    kind: 'content',
    answer: () => {
      const kept = new Map<string, string>();
      return async (request, next) => {
        if (!isRecall(request)) return next();
        const { query = '' } = (await request.clone().json()) as { query?: string };
        const known = kept.get(query);
        if (known !== undefined) return json(JSON.parse(known));
        const response = await next();
        if (response.status === 200) kept.set(query, await response.clone().text());
        return response;
      };
    },
  },
  {
    name: '403 for a memory that exists, 404 for one that does not',
    kind: 'oracle',
    answer: () => async (request, next, caller) => {
      const response = await next();
      return response.status === 404 && victimOf(request.url, caller)
        ? new Response(response.body, { status: 403, headers: response.headers })
        : response;
    },
  },
  {
    name: 'a filter by session answers for those that exist',
    kind: 'oracle',
    answer: () => async (request, next, caller) => {
      const text = isRecall(request) ? await request.clone().text() : '';
      return victimOf(/"sessionId":"[^"]+"/.exec(text)?.[0] ?? '', caller) ? json({ memories: [] }) : next();
    },
  },
  {
    name: 'a deletion does not ask whose memory it is',
    kind: 'change',
    answer: () => async (request, next, caller) => {
      const victim = request.method === 'DELETE' ? victimOf(request.url, caller) : undefined;
      if (victim === undefined) return next();
      const { database } = service.database;
      const { vectors } = service.stores;
      const ids = victim.owns.filter((id) => request.url.includes(id));
      const scope = { tenant: victim.name, visible: { whole: true }, filter: { ids } };
      await new Forgetter({ database, vectors, log: quiet }).forget(scope, by);
      return new Response(null, { status: 404 });
    },
  },
];

test('the healthy memory service: every declared route, every ordered pair, no leak', { skip }, async (context) => {
  const report = await probe();
  context.diagnostic(`${report.routes} routes, ${report.pairs} pairs, ${report.requests} requests`);
  assert.deepEqual(report.leaks, []);
  assert.deepEqual(
    routes.map(({ method, path }) => `${method} ${path}`).toSorted(),
    [
      'DELETE /v1/memories/{id}',
      'GET /openapi.json',
      'GET /v1/memories/export',
      'GET /v1/memories/{id}',
      'POST /v1/memories',
      'POST /v1/memories/forget',
      'POST /v1/memories/recall',
      'POST /v1/memories/summarize',
    ],
    'a new route is probed without a change here but for this line',
  );
  assert.ok(report.requests > 150, `${report.requests} requests`);
});

for (const { name, kind, answer } of faults) {
  test(`found: ${name}`, { skip }, async () => {
    const { leaks } = await probe(answer());
    assert.ok(
      leaks.some((leak) => leak.kind === kind),
      `no leak of the kind ${kind} among ${JSON.stringify(leaks.slice(0, 5))}`,
    );
  });
}
