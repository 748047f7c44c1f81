/**
 * The probe on the real gateway application: nothing is found in the healthy one, and each planted fault is found, by
 * the kind of leak that it is.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Cursor, identifierFor } from '@somagent/gateway/identifiers.ts';
import { type EventFilter, SessionReader, type Viewer } from '@somagent/gateway/reader.ts';
import { SessionStore } from '@somagent/orchestrator/session-store.ts';
import { hasOpenFga } from '@somagent/relations/testing/openfga.ts';
import { type Fault, type Inside, Loopback, type World } from './gateway.ts';
import { faultsOf, type Leak, type ProbeReport, TenancyProbe } from './probe.ts';

const skip = !hasOpenFga() && 'OpenFGA is not built';
let loopback: Loopback;
before(async () => {
  if (!skip) loopback = await Loopback.start(['acme', 'globex', 'initech']);
});
after(() => loopback?.stop());

async function probe(fault: Fault = {}, tenants = 2): Promise<ProbeReport> {
  loopback.lines.length = 0;
  const gateway = await loopback.gateway(fault);
  try {
    return await new TenancyProbe({
      routes: gateway.routes,
      tenants: gateway.tenants.slice(0, tenants),
      logLines: async () => [...loopback.lines],
    }).run();
  } finally {
    await gateway.stop();
  }
}

/** Whose session it is. */
const ownerOf = ({ worlds }: Inside, sessionId: string): World | undefined =>
  worlds.find(({ sessions }) => sessions.includes(sessionId));

/** The session that a path names, when it is of another tenant. */
function foreign(request: Request, inside: Inside & { readonly tenant: string }): World | undefined {
  const owner = ownerOf(inside, /\/v1\/sessions\/([^/?]+)/.exec(request.url)?.[1] ?? '');
  return owner?.tenant === inside.tenant ? undefined : owner;
}

const everybody = async () => ({ held: true, ageMs: 0 });

/** Reads with the rights of the owner of the tables, and asks for the tenant of whatever it is asked for. */
class Unfiltered extends SessionReader {
  readonly #inside: Inside;

  constructor(inside: Inside) {
    super(inside.everything);
    this.#inside = inside;
  }

  override session(tenant: string, id: string) {
    return super.session(ownerOf(this.#inside, id)?.tenant ?? tenant, id);
  }

  override turns(tenant: string, id: string) {
    return super.turns(ownerOf(this.#inside, id)?.tenant ?? tenant, id);
  }

  override events(filter: EventFilter) {
    return super.events({ ...filter, tenant: ownerOf(this.#inside, filter.sessionId)?.tenant ?? filter.tenant });
  }
}

/** Lists the sessions of every tenant. */
class ListsAll extends SessionReader {
  readonly #inside: Inside;

  constructor(inside: Inside) {
    super(inside.everything);
    this.#inside = inside;
  }

  override async sessions(_tenant: string, _viewer: Viewer | null, limit: number, after?: Cursor) {
    const pages = this.#inside.worlds.map(({ tenant }) => super.sessions(tenant, null, limit, after));
    return (await Promise.all(pages)).flat().slice(0, limit);
  }
}

/** Goes on in the list that a cursor is from, whosever it is. */
class TrustsCursors extends SessionReader {
  readonly #inside: Inside;

  constructor(inside: Inside) {
    super(inside.everything);
    this.#inside = inside;
  }

  override sessions(tenant: string, viewer: Viewer | null, limit: number, after?: Cursor) {
    const owner = after && ownerOf(this.#inside, after.id)?.tenant;
    return owner === undefined || owner === tenant
      ? super.sessions(tenant, viewer, limit, after)
      : super.sessions(owner, null, limit, after);
  }
}

const remade = (response: Response, change: { readonly status?: number; readonly headers?: Record<string, string> }) =>
  new Response(response.body, {
    status: change.status ?? response.status,
    headers: { ...Object.fromEntries(response.headers), ...change.headers },
  });

const problem = (status: number, detail: string) =>
  new Response(JSON.stringify({ type: 'urn:somagent:problem:not-found', status, detail }), {
    status,
    headers: { 'content-type': 'application/problem+json' },
  });

/** What is planted, and the kind of leak under which the probe must find it. */
const faults: readonly { readonly name: string; readonly kind: Leak['kind']; readonly fault: () => Fault }[] = [
  {
    name: 'rows are read without row-level security, WHERE and relation',
    kind: 'content',
    fault: () => ({ relations: () => ({ check: everybody }), reader: (inside) => new Unfiltered(inside) }),
  },
  { name: 'a list has no filter', kind: 'content', fault: () => ({ reader: (inside) => new ListsAll(inside) }) },
  {
    name: 'a cursor of another tenant is accepted',
    kind: 'content',
    fault: () => ({ reader: (inside) => new TrustsCursors(inside) }),
  },
  {
    name: 'an event stream does not ask whose session it is',
    kind: 'content',
    fault: () => ({
      answer: async (request, next, inside) => {
        const owner = request.url.includes('/events') ? foreign(request, inside) : undefined;
        if (owner === undefined) return next();
        const [sessionId = ''] = owner.sessions;
        const reader = new SessionReader(inside.everything);
        const events = await reader.events({ tenant: owner.tenant, sessionId, after: 0, limit: 10 });
        const body = events.map(({ seq, data }) => `id: ${seq}\ndata: ${JSON.stringify(data)}\n\n`).join('');
        return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
      },
    }),
  },
  {
    name: '403 for what exists, 404 for what does not',
    kind: 'oracle',
    fault: () => ({
      answer: async (request, next, inside) => {
        const response = await next();
        return response.status === 404 && foreign(request, inside) ? remade(response, { status: 403 }) : response;
      },
    }),
  },
  {
    name: 'what exists has an ETag, even when it is refused',
    kind: 'oracle',
    fault: () => ({
      answer: async (request, next, inside) => {
        const response = await next();
        return foreign(request, inside) ? remade(response, { headers: { etag: '"7"' } }) : response;
      },
    }),
  },
  {
    name: 'a refusal of what exists takes longer',
    kind: 'timing',
    fault: () => ({
      answer: async (request, next, inside) => {
        if (foreign(request, inside)) await sleep(25);
        return next();
      },
    }),
  },
  {
    name: 'an error says whose it is',
    kind: 'content',
    fault: () => ({
      answer: async (request, next, inside) => {
        const owner = foreign(request, inside);
        return owner === undefined ? next() : problem(404, `only ${owner.subject} may see it`);
      },
    }),
  },
  {
    name: 'a cache has no tenant in its key',
    kind: 'content',
    fault: () => {
      const cache = new Map<string, string>();
      return {
        answer: async (request, next) => {
          const path = new URL(request.url).pathname;
          const known = request.method === 'GET' ? cache.get(path) : undefined;
          if (known !== undefined) return new Response(known, { headers: { 'content-type': 'application/json' } });
          const response = await next();
          if (request.method === 'GET' && response.status === 200 && !path.endsWith('/events')) {
            cache.set(path, await response.clone().text());
          }
          return response;
        },
      };
    },
  },
  {
    name: 'an idempotency key means the same for everybody',
    kind: 'content',
    fault: () => ({
      answer: async (request, next, inside) => {
        const key = request.headers.get('idempotency-key');
        const owner = inside.worlds.find((world) => world.key === key);
        if (request.method !== 'POST' || owner === undefined) return next();
        const view = await new SessionReader(inside.everything).session(owner.tenant, owner.sessions[0] ?? '');
        return Response.json(view, { status: 201 });
      },
    }),
  },
  {
    name: 'a header says which tenant is meant',
    kind: 'content',
    fault: () => ({
      answer: async (request, next, inside) => {
        const tenant = request.headers.get('x-tenant');
        if (tenant === null || !request.url.endsWith('/v1/sessions')) return next();
        return Response.json({ sessions: await new SessionReader(inside.everything).sessions(tenant, null, 9) });
      },
    }),
  },
  {
    name: 'a write goes through although its answer is a refusal',
    kind: 'change',
    fault: () => ({
      answer: async (request, next, inside) => {
        const owner = request.method === 'DELETE' ? foreign(request, inside) : undefined;
        if (owner !== undefined) {
          const key = { tenant: owner.tenant, sessionId: owner.sessions[1] ?? '' };
          await new SessionStore(inside.everything).close({ ...key, reason: 'client' });
        }
        return next();
      },
    }),
  },
  {
    name: 'a line of the log names another tenant',
    kind: 'log',
    fault: () => ({
      answer: async (request, next, inside) => {
        const owner = foreign(request, inside);
        const response = await next();
        const requestId = response.headers.get('x-request-id');
        if (owner !== undefined) inside.log.info({ tenant: owner.tenant, requestId }, 'was asked for');
        return response;
      },
    }),
  },
  {
    name: 'a line of the log has a text of another tenant',
    kind: 'log',
    fault: () => ({
      answer: async (request, next, inside) => {
        const owner = foreign(request, inside);
        if (owner !== undefined) inside.log.info({ tenant: inside.tenant, persona: owner.persona }, 'was asked for');
        return next();
      },
    }),
  },
];

test('the healthy gateway: no leak in any pair of three tenants on any route', { skip }, async () => {
  const report = await probe({}, 3);
  assert.deepEqual(report.leaks, []);
  assert.equal(report.pairs, 6);
  assert.ok(report.routes >= 15, `${report.routes} routes`);
  assert.ok(report.requests > 500, `${report.requests} requests`);
});

for (const { name, kind, fault } of faults) {
  test(`found: ${name}`, { skip }, async () => {
    const { leaks } = await probe(fault());
    const kinds = [...new Set(leaks.map((leak) => leak.kind))];
    assert.ok(kinds.includes(kind), `found only ${JSON.stringify(leaks.slice(0, 3))}`);
  });
}

test('a line without a tenant, and one that is no JSON, are found', () => {
  const kinds = (line: string) => faultsOf(line, [], new Map()).map(({ detail }) => detail.split(':')[0]);
  assert.deepEqual(kinds('{"level":"info","message":"x"}'), ['a line has no tenant']);
  assert.deepEqual(kinds('Error: x'), ['a line is no JSON']);
  assert.deepEqual(kinds('{"level":"info","tenant":"acme"}'), []);
});

test('the same idempotency key of two tenants makes two identifiers', () => {
  const [acme, globex] = ['acme', 'globex'].map((tenant) => identifierFor('key', 'session', tenant, 'ada'));
  assert.notEqual(acme, globex);
});
