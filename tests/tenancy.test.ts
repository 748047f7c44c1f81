/** Tenants of the running platform are apart: in every API, in Postgres, in the logs; and teams see their own agents. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { objectOf, userOf } from '@somagent/relations/tuples.ts';
import { loginAs, logout, type Person } from './attacks/world.ts';
import { get, kubectl } from './support/kubectl.ts';
import { query } from './support/postgres.ts';
import { authorityPem, call, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';
import { tenantWithMemories } from './tenancy/memory.ts';
import {
  type Api,
  apiOf,
  apisOfStack,
  declaredRoutesOf,
  routesOf,
  send,
  tenantWithFigures,
  tenantWithPeople,
  tenantWithSessions,
  tenantWithTraining,
} from './tenancy/platform.ts';
import { faultsOf, type ProbeRoute, TenancyProbe, type Tenant } from './tenancy/probe.ts';

const names = ['acme', 'globex'];
const services = 'local-services';
const started = new Date().toISOString();

let gateway: Api;
let people: Map<string, Person>;

before(async () => {
  setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  gateway = await apiOf('SOMA_GATEWAY_URL', 'gatewayUrl');
  people = new Map();
  for (const name of names) people.set(name, await loginAs(`${name}-admin-1`));
});
after(async () => {
  for (const person of people?.values() ?? []) await logout(person);
});

const accessOf = (name: string): string => people.get(name)?.access ?? '';

describe('the all-pairs probe', { timeout: 900_000 }, () => {
  test('gateway: every route, every ordered pair of tenants, real identifiers: no leak', async (context) => {
    const tenants = await Promise.all(
      names.map(async (name) => tenantWithSessions(gateway, name, await tokenOf(`${name}-agent`))),
    );
    const routes = await routesOf(gateway, await tokenOf('acme-agent'));
    const report = await new TenancyProbe({ routes, tenants }).run();
    context.diagnostic(`${report.routes} routes, ${report.pairs} pairs, ${report.requests} requests`);
    assert.deepEqual(report.leaks, []);
    assert.ok(report.routes >= 8 && report.pairs === 2 && report.requests > 200);
  });

  for (const [service, variable, output] of [
    ['identity', 'SOMA_ACCOUNTS_URL', 'accountsUrl'],
    ['audit', 'SOMA_AUDIT_URL', 'auditUrl'],
  ] as const) {
    test(`${service}: every route, as the administrator of each tenant: no leak`, async (context) => {
      const accounts = await apiOf('SOMA_ACCOUNTS_URL', 'accountsUrl');
      const api = await apiOf(variable, output);
      const tenants = await Promise.all(
        names.map(async (name) => {
          const tenant = await tenantWithPeople(accounts, name, accessOf(name));
          return { ...tenant, send: (sent: Parameters<typeof tenant.send>[0]) => send(api, accessOf(name), sent) };
        }),
      );
      const routes = await routesOf(api, accessOf('acme'));
      const report = await new TenancyProbe({ routes, tenants, harmless: true }).run();
      context.diagnostic(`${report.routes} routes, ${report.pairs} pairs, ${report.requests} requests`);
      assert.deepEqual(report.leaks, []);
      assert.ok(report.routes > 1 && report.requests > 10);
    });
  }

  const memberOf = new Map<string, Person>();
  after(async () => {
    for (const person of memberOf.values()) await logout(person);
  });

  const sessionsOf = async (name: string) => tenantWithSessions(gateway, name, await tokenOf(`${name}-agent`));

  /** Of each tenant, what may be attacked at a service, by a credential that uses it. */
  const attacked: Readonly<Record<string, (api: Api, name: string) => Promise<Tenant>>> = {
    memoryUrl: async (api, name) => {
      const person = await loginAs(`${name}-member-1`);
      memberOf.set(name, person);
      const { identifiers } = await sessionsOf(name);
      const mine: Tenant['send'] = (sent) => send(api, person.access, sent);
      return tenantWithMemories({ name, subject: person.id, sessions: identifiers.id ?? [], send: mine });
    },
    analyticsUrl: async (api, name) => tenantWithFigures(api, name, accessOf(name), await sessionsOf(name)),
    trainingUrl: async (api, name) => tenantWithTraining(api, name, accessOf(name), await sessionsOf(name)),
  };

  for (const [output, tenantOf] of Object.entries(attacked)) {
    test(`${output}: every route that the service declares, bodies too: no leak`, async (context) => {
      const api = await apiOf(`SOMA_${output.replace('Url', '').toUpperCase()}_URL`, output);
      const tenants: Tenant[] = [];
      for (const name of names) tenants.push(await tenantOf(api, name));
      const routes: ProbeRoute[] = await declaredRoutesOf(api, accessOf('acme'));
      // An administrator may start a run at home; a member of the memory service harms nothing but what it spares.
      const harmless = output === 'trainingUrl';
      const report = await new TenancyProbe({ routes, tenants, harmless }).run();
      context.diagnostic(`${report.routes} routes, ${report.pairs} pairs, ${report.requests} requests`);
      assert.deepEqual(report.leaks, []);
      assert.ok(report.routes > 7 && report.pairs === 2 && report.requests > 40, JSON.stringify(report));
    });
  }

  test('no API of the stack is left out', () => {
    const probed = ['gatewayUrl', 'accountsUrl', 'auditUrl', ...Object.keys(attacked)];
    assert.deepEqual(apisOfStack(), probed.toSorted());
  });
});

test('a team sees its own agents: their sessions, and no others', { timeout: 120_000 }, async () => {
  const [blue, green] = [await loginAs('acme-member-1'), await loginAs('acme-member-2')];
  try {
    const agent = await tokenOf('acme-agent');
    const { body: opened } = await call<{ id: string }>('/v1/sessions', { method: 'POST', token: agent, body: {} });
    const of = (person: Person) => call<{ id?: string }>(`/v1/sessions/${opened.id}`, { token: person.access });
    // The relation of a new session arrives with its event; the facts of the database count until then.
    assert.equal((await of(blue)).status, 200);
    assert.equal((await of(green)).status, 404);
    assert.equal((await call(`/v1/sessions/${opened.id}`, { token: accessOf('acme') })).status, 200);
    const listed = async (person: Person) => {
      const { body } = await call<{ sessions: { id: string }[] }>('/v1/sessions?limit=100', { token: person.access });
      return body.sessions.some(({ id }) => id === opened.id);
    };
    assert.deepEqual([await listed(blue), await listed(green)], [true, false]);
  } finally {
    await Promise.all([blue, green].map(logout));
  }
});

/** Asks OpenFGA past our services, from the one pod that may: what somebody with its key could do. */
async function askOpenFga(path: string, body: object): Promise<{ status: number; body: Record<string, unknown> }> {
  const text = await kubectl(...inRelations, '-e', pastUs, path, JSON.stringify(body));
  return JSON.parse(text);
}

const inRelations = ['exec', '-n', services, 'deployment/relations', '--', 'node'];
/** The key stays in its file; `{store}` of a path is the one store. */
const pastUs = `
const { OPENFGA_URL, OPENFGA_CA_FILE, OPENFGA_TOKEN_FILE } = process.env;
const read = (file) => require('node:fs').readFileSync(file, 'utf8').trim();
const headers = { authorization: 'Bearer ' + read(OPENFGA_TOKEN_FILE), 'content-type': 'application/json' };
const ask = (path, body) => new Promise((resolve, reject) => {
  const options = { method: body ? 'POST' : 'GET', ca: read(OPENFGA_CA_FILE), headers };
  const request = require('node:https').request(OPENFGA_URL + path, options, (answer) => {
    let text = '';
    answer.on('data', (piece) => (text += piece)).on('end', () => resolve({ status: answer.statusCode, body: JSON.parse(text) }));
  });
  request.on('error', reject).end(body);
});
ask('/stores').then(({ body }) => ask(process.argv[1].replace('{store}', body.stores[0].id), process.argv[2]))
  .then((answer) => console.log(JSON.stringify(answer)));`;

test('relations: nothing differs from its sources, and what is planted past them is undone', {
  timeout: 180_000,
}, async (context) => {
  const reconcile = async (...options: string[]) => {
    const text = await kubectl(...inRelations, '/app/main.js', 'reconcile', ...options);
    return JSON.parse(text.slice(text.indexOf('{\n'))) as { tuples: number; differences: string[] };
  };
  await reconcile();
  const clean = await reconcile('--report');
  assert.deepEqual(clean.differences, []);
  assert.ok(clean.tuples > 10, `${clean.tuples} tuples`);

  const { body: opened } = await call<{ id: string }>('/v1/sessions', {
    method: 'POST',
    token: await tokenOf('acme-agent'),
    body: {},
  });
  const intruder = { user: userOf({ tenant: 'globex', subject: 'intruder' }), relation: 'owner' };
  const planted = { ...intruder, object: objectOf('session', 'acme', opened.id) };
  const written = await askOpenFga('/stores/{store}/write', { writes: { tuple_keys: [planted] } });
  assert.equal(written.status, 200, JSON.stringify(written.body));
  const began = performance.now();
  await eventually('the planted relation is gone', 60, async () => {
    const { body } = await askOpenFga('/stores/{store}/read', { tuple_key: planted });
    return Array.isArray(body.tuples) && body.tuples.length === 0 ? true : undefined;
  });
  context.diagnostic(`undone after ${Math.round(performance.now() - began)} ms`);
  assert.deepEqual((await reconcile('--report')).differences, []);
});

/** Every table with a column `tenant`, and whether Postgres guards it. */
async function guarded(database: string): Promise<Map<string, boolean>> {
  const lines = await query(`\\connect ${database}
    select c.relname || ' ' || (c.relrowsecurity and c.relforcerowsecurity) from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant' and not a.attisdropped
    where c.relkind in ('r', 'p') and n.nspname = 'public'`);
  return new Map(lines.map((line) => [line.split(' ')[0] ?? '', line.endsWith('true')] as const));
}

for (const database of ['sessions', 'identity', 'audit', 'memory', 'training']) {
  test(`Postgres guards every table of ${database} that has rows of tenants`, async () => {
    const tables = await guarded(database);
    assert.ok(tables.size > 0, 'no table with a column tenant');
    assert.deepEqual(
      [...tables].filter(([, safe]) => !safe),
      [],
    );
  });
}

test('every line of every pod of our services names its tenant', { timeout: 120_000 }, async (context) => {
  const { items } = await get<{ items: { metadata: { name: string }; status: { phase: string } }[] }>(
    ...['pods', '-n', services, '-l', 'app.kubernetes.io/part-of=somagent'],
  );
  let lines = 0;
  for (const { metadata, status } of items) {
    if (status.phase !== 'Running') continue;
    const since = `--since-time=${started}`;
    const text = await eventually(`the log of ${metadata.name}`, 20, () =>
      kubectl('logs', '-n', services, metadata.name, since, '--tail=-1'),
    );
    const all = text.split('\n').filter(Boolean);
    lines += all.length;
    assert.deepEqual(
      all.flatMap((line) => faultsOf(line, [], new Map())).map(({ detail }) => `${metadata.name}: ${detail}`),
      [],
    );
  }
  context.diagnostic(`${lines} lines of ${items.length} pods`);
  assert.ok(lines > 100, `only ${lines} lines`);
});
