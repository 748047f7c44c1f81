/** Spans as the OpenTelemetry Collector takes them over TLS: nothing here is only what a library says of itself. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { ROOT_CONTEXT, trace } from '@opentelemetry/api';
import { type ReceivedSpan, startCollector, type TestCollector } from '@somagent/bootstrap/testing/otel-collector.ts';
import { startPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { tenantGaps } from '@somagent/bootstrap/testing/tenant-gaps.ts';
import { type Kysely, sql } from 'kysely';
import { ConfigError } from './config.ts';
import { asTenant, createLogger } from './log.ts';
import { createPool } from './postgres.ts';
import { TenantDatabase } from './tenancy.ts';
import { openHttpClient } from './tls.ts';
import { contextFrom, inChildSpan, inSpan, startTracing, stopTracing, tenantOf, traceHeaders } from './tracing.ts';

const log = createLogger({ service: 'test', level: 'silent' });
const work = async () => undefined;
const above = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331' };

describe('tracing', { timeout: 900_000 }, () => {
  let collector: TestCollector;
  let seen = 0;
  before(async () => {
    collector = await startCollector();
  });
  after(() => collector?.stop());
  afterEach(() => stopTracing());

  const start = (variables: Readonly<Record<string, string>> = {}) =>
    startTracing('test', log, {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_CERTIFICATE: collector.caFile,
      ...variables,
    });

  /** Ends tracing, which hands everything over. @returns what the collector took since the last time */
  async function taken(expected: number): Promise<readonly ReceivedSpan[]> {
    await stopTracing();
    const end = performance.now() + 5000;
    while (collector.spans().length < seen + expected && performance.now() < end)
      await new Promise((done) => setTimeout(done, 20));
    const spans = collector.spans().slice(seen);
    seen += spans.length;
    assert.equal(spans.length, expected, JSON.stringify(spans));
    return spans;
  }

  it('hands a trace over: who is above whom, attributes, events, and the tenant on each span', async () => {
    start();
    await asTenant('acme', () =>
      inSpan('outer', { attributes: { size: 3 } }, async (span) => {
        span.addEvent('fallback', { reason: 'first: timeout' });
        await inChildSpan('inner', {}, work);
      }),
    );
    await assert.rejects(
      inSpan('alone', {}, () => Promise.reject(new RangeError('of mary'))),
      RangeError,
    );
    const spans = await taken(3);
    const [inner, outer, alone] = ['inner', 'outer', 'alone'].map((name) => spans.find((span) => span.name === name));
    assert.ok(inner && outer && alone);
    assert.deepEqual(outer.attributes, { size: '3', 'soma.tenant': 'acme' });
    assert.ok(outer.events.includes('fallback'));
    assert.deepEqual([inner.traceId, inner.parentId], [outer.traceId, outer.spanId]);
    assert.equal(inner.attributes['soma.tenant'], 'acme');
    assert.deepEqual(alone.attributes, { 'soma.tenant': 'platform', 'error.type': 'RangeError' });
    assert.equal(inner.service, 'test');
    assert.deepEqual(tenantGaps(spans), []);
  });

  it('finds a planted span that lost its tenant, and one of another tenant than the span above it', async () => {
    start();
    const remote = trace.setSpanContext(ROOT_CONTEXT, { ...above, traceFlags: 1, isRemote: true });
    await inSpan('planted', { parent: remote }, work);
    await asTenant('acme', () => inSpan('ours', {}, () => asTenant('globex', () => inSpan('theirs', {}, work))));
    const gaps = tenantGaps(await taken(3));
    assert.equal(gaps.length, 2);
    assert.match(gaps[0] ?? '', /planted: its tenant is unknown/);
    assert.match(gaps[1] ?? '', /theirs: its tenant is globex, that of ours is acme/);
  });

  it('crosses from one process to the next by headers that name the trace and its tenant only', async () => {
    start();
    let headers: Record<string, string> = {};
    await asTenant('acme', () =>
      inSpan('caller', {}, async () => {
        headers = traceHeaders();
      }),
    );
    assert.deepEqual(Object.keys(headers).sort(), ['baggage', 'traceparent']);
    const there = contextFrom({ ...headers, baggage: `${headers.baggage},session=secret` });
    assert.equal(tenantOf(there), 'acme');
    await inSpan('called', { parent: there }, async () => {
      assert.doesNotMatch(traceHeaders().baggage ?? '', /secret/);
    });
    const spans = await taken(2);
    assert.equal(new Set(spans.map(({ traceId }) => traceId)).size, 1);
    assert.deepEqual(tenantGaps(spans), []);
  });

  it('tells only servers of an authority of ours about the trace', async () => {
    start();
    const asked: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      asked.push(request.headers.traceparent as string | undefined);
      response.end();
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const [ours, foreign] = [openHttpClient(collector.caFile), openHttpClient(undefined)];
    try {
      await inSpan('asking', {}, async () => {
        for (const { fetch: ask } of [ours, foreign]) await (await ask(url)).text();
      });
      await (await ours.fetch(url)).text();
    } finally {
      await Promise.all([ours.close(), foreign.close()]);
      await new Promise((done) => server.close(done));
    }
    const spans = await taken(3);
    assert.match(asked[0] ?? '', new RegExp(`^00-${spans.at(-1)?.traceId}-`));
    assert.deepEqual(asked.slice(1), [undefined, undefined]);
  });

  it('shows statements of a traced request, without their text and values', async () => {
    const postgres = await startPostgres();
    const folder = await mkdtemp(join(tmpdir(), 'somagent-tracing-'));
    for (const [name, value] of Object.entries({ username: 'traced', password: 'of-this-test' })) {
      await writeFile(join(folder, name), value);
    }
    const admin = await postgres.connect('postgres');
    await admin.query(`create role traced login password 'of-this-test'`);
    await admin.end();
    const { host, port } = postgres.server;
    const place = { PGHOST: host, PGPORT: port, PGDATABASE: 'postgres', PG_POOL_SIZE: 2 };
    const pool = createPool({ ...place, PG_CREDENTIALS_DIR: folder, PG_CA_FILE: postgres.caFile }, log);
    const database = new TenantDatabase<unknown>(pool);
    try {
      start();
      await sql`select 1`.execute(database.untenanted);
      const asked = (rows: Kysely<unknown>) =>
        inSpan('request', {}, () => sql`select ${'a secret'} as word`.execute(rows));
      const { rows } = await asTenant('acme', () => asked(database.of('acme')));
      assert.deepEqual(rows, [{ word: 'a secret' }]);
      await assert.rejects(
        inSpan('broken', {}, () => sql`select nothing`.execute(database.of('acme'))),
        /nothing/,
      );
    } finally {
      await database.destroy();
      await postgres.stop();
      await rm(folder, { recursive: true });
    }
    const spans = await taken(5);
    const statements = spans.filter(({ name }) => name === 'postgres select');
    assert.equal(statements.length, 3, 'the tenant of the connection, the statement, and the one that fails');
    assert.deepEqual(statements[1]?.attributes, {
      'db.namespace': 'postgres',
      'db.operation.name': 'select',
      'db.system.name': 'postgresql',
      'soma.tenant': 'acme',
    });
    assert.ok(statements.some(({ attributes }) => attributes['error.type'] !== undefined));
    assert.doesNotMatch(JSON.stringify(spans), /secret|set_config/);
  });

  it('keeps the share that is asked for, and what whoever began the trace has chosen to keep', async () => {
    start({ OTEL_TRACES_SAMPLER_ARG: '0' });
    await inSpan('not kept', {}, work);
    const parent = contextFrom({ traceparent: `00-${above.traceId}-${above.spanId}-01`, baggage: 'soma.tenant=acme' });
    await inSpan('kept', { parent }, work);
    const [kept] = await taken(1);
    assert.equal(kept?.name, 'kept');
  });

  it('does nothing where no address is set, and refuses one that is not encrypted', async () => {
    startTracing('test', log, {});
    await asTenant('acme', () => inSpan('nowhere', {}, async () => assert.deepEqual(traceHeaders(), {})));
    await taken(0);
    const unsecured = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' };
    assert.throws(() => startTracing('test', log, unsecured), ConfigError);
    assert.throws(() => start({ OTEL_TRACES_SAMPLER_ARG: '2' }), /OTEL_TRACES_SAMPLER_ARG is "2"/);
  });

  it('does not keep a process from ending when nobody takes its traces', async () => {
    start({ OTEL_EXPORTER_OTLP_ENDPOINT: 'https://127.0.0.1:9' });
    await inSpan('lost', {}, work);
    const begun = performance.now();
    await stopTracing();
    assert.ok(performance.now() - begun < 5000);
  });
});
