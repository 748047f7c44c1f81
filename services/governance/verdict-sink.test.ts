/** The way of verdicts when Kafka is away: the real client without a broker, and a real outbox. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { event, readEvent } from '@somagent/events';
import { appendEvents, createLogger, KafkaProducer, outboxMigration } from '@somagent/kit';
import { Kysely, PostgresDialect } from 'kysely';
import type { VerdictRecord } from './neighbours.ts';
import { KafkaVerdictSink, type VerdictEvent, verdictEvent } from './verdict-sink.ts';

const log = createLogger({ service: 'test', level: 'silent' });
let postgres: TestPostgres;
let db: Kysely<{ outbox: { id: string; topic: string; key: string; value: { data: { requestId: string } } } }>;
let kafka: KafkaProducer;

before(async () => {
  postgres = await startPostgres();
  db = new Kysely({ dialect: new PostgresDialect({ pool: postgres.pool('postgres') }) });
  await outboxMigration.up(db);
  await writeFile(join(postgres.folder, 'username'), 'gateway');
  const config = {
    // Nobody listens on the port of tcpmux.
    KAFKA_BROKERS: '127.0.0.1:1',
    KAFKA_CREDENTIALS_DIR: postgres.folder,
    KAFKA_CA_FILE: postgres.caFile,
  };
  kafka = new KafkaProducer(config, { clientId: 'gateway' });
});
after(async () => {
  await kafka.close();
  await db.destroy();
  await postgres.stop();
});

const record = (): VerdictRecord => ({
  time: new Date().toISOString(),
  requestId: randomUUID(),
  tenant: 'acme',
  actor: { kind: 'user', id: 'ann', client: 'acme-agent' },
  service: 'gateway',
  route: 'getSession',
  method: 'GET',
  path: '/v1/sessions/{id}',
  capability: 'session:read',
  resource: { type: 'session', id: 's1' },
  allow: false,
  rule: 'soma.gateway.deny_by_default',
  reasons: ['no role has it'],
  revision: 'r1',
  latencyUs: 120,
  status: 403,
  input: null,
});

const spill = (events: readonly VerdictEvent[]) => appendEvents(db, events);
const stored = async () =>
  (await db.selectFrom('outbox').selectAll().execute()).map(({ value }) => value.data.requestId);

test('the event of a verdict is the one that its contract asks for', () => {
  const verdict = record();
  const made = verdictEvent(verdict);
  const { time, tenant, actor, ...data } = verdict;
  const checked = event('verdict.decisions', 'verdict.decided', {
    tenant,
    actor,
    requestId: verdict.requestId,
    data: { ...data, resource: { type: 'session', id: 's1' }, reasons: [...data.reasons], input: null },
    id: made.value.id,
    time: new Date(time),
  });
  assert.deepEqual(
    { ...made, headers: { ...checked.headers, id: made.value.id } },
    { ...checked, headers: made.headers },
  );
  assert.deepEqual(readEvent('verdict.decisions', JSON.parse(JSON.stringify(made.value))), checked.value);
});

test('without Kafka every verdict is in the outbox, once', { timeout: 30_000 }, async () => {
  const sink = new KafkaVerdictSink({ producer: kafka, spill, log, patience: 200, batch: 50 });
  const verdicts = Array.from({ length: 320 }, record);
  for (const verdict of verdicts) sink.record(verdict);
  await sink.flush();
  assert.deepEqual(sink.state, { waiting: 0, kafka: 0, outbox: 320 });
  assert.deepEqual((await stored()).sort(), verdicts.map(({ requestId }) => requestId).sort());
});

test('without either, verdicts wait in memory up to the limit, and none is lost', { timeout: 30_000 }, async () => {
  await db.deleteFrom('outbox').execute();
  await db.schema.alterTable('outbox').renameTo('outbox_away').execute();
  const sink = new KafkaVerdictSink({ producer: kafka, spill, log, patience: 100, capacity: 20 });
  const verdicts = Array.from({ length: 20 }, record);
  for (const verdict of verdicts) {
    assert.equal(sink.accepting, true);
    sink.record(verdict);
  }
  assert.equal(sink.accepting, false);
  await db.schema.alterTable('outbox_away').renameTo('outbox').execute();
  await sink.flush();
  assert.equal(sink.accepting, true);
  assert.deepEqual((await stored()).sort(), verdicts.map(({ requestId }) => requestId).sort());
});

test('what arrives late in Kafka and in the outbox too is the same event', async () => {
  const made = verdictEvent(record());
  const before = (await stored()).length;
  await spill([made]);
  await spill([made]);
  assert.equal((await stored()).length, before + 1);
});
