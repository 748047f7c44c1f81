import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { OutgoingEvent } from '@somagent/events';
import { fetchTrusting } from '@somagent/kit';
import { columnsOf, eventRow, type IngestedTopic, tableOfTopic } from '../ingest/rows.ts';
import { turnEnded, usageEvent, verdict } from '../testing/events.ts';
import { startAnalytics, type TestAnalytics } from '../testing/service.ts';
import { rangeOf } from './handlers.ts';
import { routes } from './routes.ts';

const people = {
  operator: { sub: 'olga', roles: ['operator'], preferred_username: 'olga' },
  mary: { sub: 'mary', tenant: 'acme', roles: ['member'], preferred_username: 'mary' },
  gina: { sub: 'gina', tenant: 'globex', roles: ['auditor'], preferred_username: 'gina' },
  agent: { sub: 'bot', tenant: 'acme', roles: ['agent'], preferred_username: 'bot' },
};
type Who = keyof typeof people;

const reports = ['latencies', 'usage', 'cost', 'verdicts', 'errors', 'success', 'forecast', 'anomalies'] as const;
const inAnHour = new Date(Date.now() + 3600_000).toISOString().slice(0, 19).replace('T', ' ');
let service: TestAnalytics;
let trusting: typeof fetch;
before(async () => {
  service = await startAnalytics();
  trusting = fetchTrusting(service.caFile);
  await fill();
});
after(() => service?.stop());

async function store(topic: IngestedTopic, events: readonly OutgoingEvent[]): Promise<void> {
  const rows = events.map(({ value }, offset) => ({ ...eventRow(topic, value as never), partition: 0, offset }));
  const table = tableOfTopic[topic];
  await service.store.warehouse.insertColumns(table, columnsOf[table], rows, `${topic}/0/0-${rows.length}`);
}

/** Figures of globex are all of another size, so that one that leaks shows. */
async function fill(): Promise<void> {
  const usage = (tenant: string, promptTokens: number, persona: string) =>
    usageEvent(1, { tenant, promptTokens, completionTokens: 1, persona, costMicros: promptTokens });
  await store('usage.tokens', [
    ...[100, 200, 300].map((tokens) => usage('acme', tokens, 'clerk')),
    usage('acme', 400, 'guide'),
    ...[1_000_000, 2_000_000].map((tokens) => usage('globex', tokens, 'clerk')),
  ]);
  await store('audit.session', [
    ...['completed', 'completed', 'completed', 'failed', 'cancelled'].map((status, place) =>
      turnEnded(place, 'acme', status as 'completed'),
    ),
    turnEnded(9, 'globex', 'failed'),
  ]);
  await store('verdict.decisions', [
    verdict(0, 'acme', true, 200),
    verdict(1, 'acme', false, 403),
    verdict(2, 'acme', true, 503),
    verdict(3, 'globex', true, 500),
  ]);
  const made = new Date().toISOString().slice(0, 23).replace('T', ' ');
  for (const [tenant, expected] of [
    ['acme', 50],
    ['globex', 7_000_000],
  ] as const) {
    const common = { tenant, hour: inAnHour, made, expected };
    await service.store.warehouse.insert('forecast', [{ ...common, low: 1, high: 2, accuracy: 0.96 }], `f/${tenant}`);
    const hour = made.slice(0, 19);
    await service.store.warehouse.insert('anomaly', [{ ...common, hour, tokens: expected, score: 9 }], `a/${tenant}`);
  }
}

// biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
async function ask(who: Who | null, path: string): Promise<{ status: number; text: string; body: any }> {
  const headers: Record<string, string> =
    who === null ? {} : { authorization: `Bearer ${await service.token(people[who])}` };
  const response = await trusting(`${service.url}/v1/analytics/${path}`, { headers });
  const text = await response.text();
  return { status: response.status, text, body: JSON.parse(text) };
}

const rows = async (who: Who, path: string) => {
  const { status, body, text } = await ask(who, path);
  assert.equal(status, 200, text);
  // biome-ignore lint/suspicious/noExplicitAny: rows of every report
  return body.rows as any[];
};

test('nobody gets anything without a token, and an agent nothing with one', async () => {
  for (const report of reports) {
    assert.equal((await ask(null, report)).status, 401, report);
    assert.equal((await ask('agent', report)).status, 403, report);
  }
  assert.equal(Object.keys(routes).length, reports.length + 1, 'each route is tried here');
});

test('each report counts what the tenant of the token did', async () => {
  const [usage] = await rows('mary', 'usage?step=86400');
  assert.deepEqual([usage.requests, usage.promptTokens, usage.completionTokens], [4, 1000, 4]);
  const personas = await rows('mary', 'usage?by=persona&step=86400');
  assert.deepEqual(
    personas.map(({ group, promptTokens }) => [group, promptTokens]),
    [
      ['clerk', 600],
      ['guide', 400],
    ],
  );
  const [cost] = await rows('mary', 'cost?step=86400');
  assert.equal(cost.costMicros, 1000);
  const [success] = await rows('mary', 'success?step=86400');
  assert.deepEqual([success.completed, success.failed, success.cancelled, success.rate], [3, 1, 1, 0.75]);
  const [verdicts] = await rows('mary', 'verdicts?step=86400');
  assert.deepEqual([verdicts.allowed, verdicts.denied], [2, 1]);
  const errors = await rows('mary', 'errors?step=86400&by=message');
  assert.deepEqual(
    errors.map(({ group, errors: count }) => [group, count]),
    [
      ['HTTP 503', 1],
      ['the model is away', 1],
    ],
  );
  const [latencies] = await rows('mary', 'latencies?step=86400&slm=true');
  assert.deepEqual([latencies.turns, latencies.platform.p50, latencies.model.p95, latencies.queue.p99], [4, 6, 51, 1]);
  assert.deepEqual((await rows('mary', 'forecast'))[0].expected, 50);
  assert.deepEqual((await rows('mary', 'anomalies'))[0].tokens, 50);
});

test('no tenant sees anything of another, whatever it asks for', async () => {
  for (const report of reports) {
    const grouped = ['success', 'forecast', 'anomalies'].includes(report) ? '' : '&by=tenant';
    const { status, text } = await ask('mary', `${report}?x=1${grouped}`);
    assert.equal(status, 200, text);
    assert.doesNotMatch(text, /globex|000000/, report);
    const named = await ask('mary', `${report}?tenant=globex`);
    assert.deepEqual([named.status, named.body.type], [403, 'urn:somagent:problem:forbidden'], report);
    assert.equal((await ask('gina', `${report}?tenant=globex`)).status, 200, 'its own tenant may be named');
  }
  assert.deepEqual((await rows('gina', 'usage?step=86400'))[0].promptTokens, 3_000_000);
});

test('an operator sees all tenants, or one', async () => {
  const all = await rows('operator', 'usage?step=86400&by=tenant');
  assert.deepEqual(
    all.map(({ group, promptTokens }) => [group, promptTokens]),
    [
      ['acme', 1000],
      ['globex', 3_000_000],
    ],
  );
  assert.deepEqual((await rows('operator', 'usage?step=86400&tenant=acme'))[0].promptTokens, 1000);
});

test('SQL in a request is refused or stays text', async () => {
  const attempts = [
    "by=persona'%20or%201=1",
    'by=persona)%20union%20all%20select%20*%20from%20usage--',
    "tenant=acme'%20or%20'1'='1",
    'tenant=%7Beverything:Bool%7D',
    'step=60)%20or%20(1=1',
    "from=2026-01-01'%20or%20tenant='globex",
    'to=now()',
  ];
  for (const attempt of attempts) {
    for (const who of ['mary', 'operator'] as const) {
      const { status, text } = await ask(who, `usage?${attempt}`);
      assert.equal(status, 400, `${attempt}: ${text}`);
      assert.doesNotMatch(text, /promptTokens/, attempt);
    }
  }
  const forged = { ...people.mary, tenant: "acme' or '1'='1" };
  const headers = { authorization: `Bearer ${await service.token(forged)}` };
  assert.equal((await trusting(`${service.url}/v1/analytics/usage`, { headers })).status, 403);
});

test('who answers requests may not write, whatever gets into a statement', async () => {
  const { Warehouse } = await import('../warehouse/warehouse.ts');
  const reader = new Warehouse(service.store.variables('reader'));
  for (const statement of ['drop table analytics.usage', 'alter table analytics.usage delete where 1']) {
    await assert.rejects(reader.run(statement), { code: '497' }, statement);
  }
  await assert.rejects(reader.insert('usage', [{ partition: 0, offset: 99 }], 'x'), { code: '164' });
  await reader.close();
});

test('while ClickHouse is away each report says so, and afterwards it answers', async () => {
  await service.store.server.kill();
  for (const report of reports) {
    const { status, body } = await ask('mary', report);
    assert.deepEqual([status, body.type], [503, 'urn:somagent:problem:unavailable'], report);
    assert.equal(body.detail, 'ClickHouse, where figures are kept, does not answer: try again');
  }
  assert.equal((await ask(null, 'usage')).status, 401, 'who is nobody learns nothing of it');
  await service.store.server.resume();
  assert.deepEqual((await rows('mary', 'usage?step=86400'))[0].promptTokens, 1000);
});

test('a range that makes no sense is refused by name', () => {
  const now = new Date('2026-11-23T12:00:00Z');
  for (const [asked, problem] of [
    [{ from: '2026-11-24T00:00:00Z' }, /from is 2026-11-24T00:00:00.000Z; it must lie before to/],
    [{ from: '2026-09-01T00:00:00Z' }, /from lies 84 days before to; 30 are kept/],
    [{ from: '2026-11-01T00:00:00Z', step: 60 }, /step is 60; for this range it must be at least 972 seconds/],
  ] as const) {
    assert.throws(() => rangeOf(asked, now), problem);
  }
  assert.deepEqual(rangeOf({}, now).from.toISOString(), '2026-11-22T12:00:00.000Z');
});
