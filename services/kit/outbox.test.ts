import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUIDv7 } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { Kysely, PostgresDialect, sql } from 'kysely';
import type pg from 'pg';
import { KafkaConsumer } from './kafka-consumer.ts';
import { KafkaProducer } from './kafka-producer.ts';
import { createLogger } from './log.ts';
import {
  appendEvents,
  OutboxError,
  type OutboxEvent,
  outboxChannel,
  outboxInsert,
  outboxLocks,
  outboxMigration,
} from './outbox.ts';
import { OutboxRelay } from './outbox-relay.ts';
import { createPool, type PostgresConfig } from './postgres.ts';

const log = createLogger({ service: 'test', level: process.env.LOG_LEVEL ?? 'silent' });
const topic = 'audit.session';

interface Tables {
  action: { id: string };
}

let postgres: TestPostgres;
let kafka: TestEventKafka;
let config: PostgresConfig;
let pool: pg.Pool;
let db: Kysely<Tables>;
let consumer: KafkaConsumer;
/** Ids of all events that came out of Kafka, in the order in which each key was read, repetitions included. */
const arrived: string[] = [];

const events = (count: number, key = 'acme/one', to = topic): readonly OutboxEvent[] =>
  Array.from({ length: count }, () => {
    const id = randomUUIDv7();
    return { topic: to, key, value: { id, type: 'some.thing' }, headers: { 'content-type': 'application/json', id } };
  });
const idsOf = (list: readonly OutboxEvent[]): readonly string[] => list.map(({ value }) => value.id);
const append = (list: readonly OutboxEvent[]) =>
  db.transaction().execute((transaction) => appendEvents(transaction, list));
const backlog = async () => (await OutboxRelay.backlog(pool)).events;

/** The events of a list that arrived, each where it came first. */
const firstArrivals = (list: readonly OutboxEvent[]): readonly string[] => {
  const wanted = new Set(idsOf(list));
  return [...new Set(arrived)].filter((id) => wanted.has(id));
};

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(10);
}

const delivered = (list: readonly OutboxEvent[]) => until(() => firstArrivals(list).length === list.length);

/** Relays that a test has not stopped: one that fails must not leave a leader to the next. */
const running = new Set<() => Promise<void>>();

async function startRelay(): Promise<{ readonly relay: OutboxRelay; stop(): Promise<void> }> {
  const sink = new KafkaProducer(await kafka.variables('orchestrator'), { clientId: 'orchestrator' });
  const relay = new OutboxRelay({ database: config, sink, log });
  relay.start();
  const stop = async () => {
    running.delete(stop);
    await relay.stop();
    await sink.close();
  };
  running.add(stop);
  return { relay, stop };
}

async function preparePostgres(): Promise<void> {
  postgres = await startPostgres();
  const admin = await postgres.connect('postgres');
  await admin.query(`create role service login password 'of this test only'`);
  await admin.query('create database service owner service');
  await admin.end();
  await writeFile(join(postgres.folder, 'username'), 'service');
  await writeFile(join(postgres.folder, 'password'), 'of this test only');
  config = {
    PGHOST: postgres.server.host,
    PGPORT: postgres.server.port,
    PGDATABASE: 'service',
    PG_CREDENTIALS_DIR: postgres.folder,
    PG_CA_FILE: postgres.caFile,
    PG_POOL_SIZE: 8,
  };
  pool = createPool(config, log);
  db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  await outboxMigration.up(db);
  await sql`create table action (id text primary key)`.execute(db);
}

describe('the outbox', { timeout: 300_000 }, () => {
  before(async () => {
    const kafkaStarts = startEventKafka();
    await preparePostgres();
    kafka = await kafkaStarts;
    consumer = new KafkaConsumer(await kafka.variables('audit'), {
      group: 'audit',
      topics: [topic],
      log,
      handle: async (messages) => {
        arrived.push(...messages.map(({ value }) => JSON.parse(value.toString()).id));
      },
    });
    consumer.start();
  });
  afterEach(async () => {
    for (const stop of running) await stop();
  });
  after(async () => {
    await consumer?.stop();
    await db?.destroy();
    await kafka?.stop();
    await postgres?.stop();
  });

  test('an event comes out once, in order, with its key and headers, and leaves nothing behind', async () => {
    const list = events(50);
    await append(list);
    assert.equal(await backlog(), 50);
    const { relay, stop } = await startRelay();
    await delivered(list);
    await until(async () => (await backlog()) === 0);
    assert.deepEqual(firstArrivals(list), idsOf(list));
    assert.equal(arrived.length, 50);
    await until(() => relay.status.relayed === 50);
    assert.deepEqual(relay.status, { leader: true, relayed: 50, held: {} });
    await stop();
  });

  test('a transaction that is rolled back leaves no event', async () => {
    const [lost, kept] = [events(1), events(1)];
    const failing = db.transaction().execute(async (transaction) => {
      await transaction.insertInto('action').values({ id: 'rolled back' }).execute();
      await appendEvents(transaction, lost);
      throw new Error('the action failed');
    });
    await assert.rejects(failing, /the action failed/);
    await append(kept);
    const { stop } = await startRelay();
    await delivered(kept);
    assert.deepEqual(firstArrivals([...lost, ...kept]), idsOf(kept));
    await stop();
  });

  test('within one statement an event exists exactly if its action took place', async () => {
    const act = (list: readonly OutboxEvent[]) =>
      sql`with done as (insert into action (id) values ('once') on conflict do nothing returning id),
        told as (${outboxInsert(list, sql`exists (select 1 from done)`)})
        select * from done`.execute(db);
    const [first, second] = [events(3), events(3)];
    await act(first);
    await act(second);
    const { rows } = await pool.query('select id from outbox order by seq');
    assert.deepEqual(
      rows.map(({ id }) => id),
      idsOf(first),
    );
    await append(first);
    assert.equal(await backlog(), 3, 'an id that is there already was stored twice');
    await pool.query('truncate outbox');
  });

  test('an event that Kafka would refuse fails its transaction, which nothing else would ever tell', async () => {
    const [event] = events(1);
    assert.ok(event);
    const large = { ...event, value: { ...event.value, text: 'x'.repeat(900_000) } };
    await assert.rejects(append([large]), (error: unknown) => {
      assert.ok(error instanceof OutboxError);
      assert.match(
        error.message,
        /for audit\.session: 900\d\d\d bytes, at most 900000 are allowed; store what is large/,
      );
      return true;
    });
    assert.equal(await backlog(), 0);
  });

  for (const moment of ['before', 'after'] as const) {
    test(`a process killed ${moment} Kafka has the event: it takes effect once`, async () => {
      const list = events(20);
      await append(list);
      const child = spawn(process.execPath, [new URL('testing/relay-process.ts', import.meta.url).pathname], {
        env: { ...process.env, ...stringsOf(config), ...(await kafka.variables('orchestrator')), HANG: moment },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [said] = await once(child.stdout, 'data');
      assert.equal(String(said).trim(), moment);
      child.kill('SIGKILL');
      await once(child, 'exit');
      assert.equal(await backlog(), 20);
      const { stop } = await startRelay();
      await until(async () => (await backlog()) === 0);
      await delivered(list);
      assert.deepEqual(firstArrivals(list), idsOf(list));
      // After an acknowledgement the events come a second time: it is their id that makes them one.
      const times = moment === 'before' ? 1 : 2;
      await until(() => arrived.filter((id) => id === list.at(-1)?.value.id).length === times);
      await stop();
    });
  }

  test('while Kafka is down the backlog grows; then everything comes, in the order of each key', async () => {
    const { stop } = await startRelay();
    const warm = events(1);
    await append(warm);
    await delivered(warm);
    await kafka.kill(0);
    const keys = Array.from({ length: 5 }, (_, index) => events(400, `acme/${index}`));
    for (let from = 0; from < 400; from += 20) for (const list of keys) await append(list.slice(from, from + 20));
    assert.equal(await backlog(), 2000);
    const { oldest } = await OutboxRelay.backlog(pool);
    assert.ok(oldest > 0 && oldest < 60_000, `the oldest is ${oldest} ms old`);
    await kafka.start(0);
    await delivered(keys.flat());
    for (const list of keys) assert.deepEqual(firstArrivals(list), idsOf(list));
    await until(async () => (await backlog()) === 0);
    await stop();
  });

  test('of two relays one works; the other takes over when the first loses its connection, or stops', async () => {
    const one = await startRelay();
    await until(() => one.relay.status.leader);
    const two = await startRelay();
    const list = events(10);
    await append(list);
    await delivered(list);
    await until(async () => (await backlog()) === 0);
    assert.deepEqual([one.relay.status.leader, two.relay.status.leader], [true, false]);
    await until(() => one.relay.status.relayed === 10);
    assert.equal(two.relay.status.relayed, 0);
    await pool.query(
      `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = $1 and objid = $2 and granted`,
      [outboxLocks.space, outboxLocks.leader],
    );
    await until(() => two.relay.status.leader || !one.relay.status.leader);
    await until(() => two.relay.status.leader !== one.relay.status.leader);
    const [leader, other] = two.relay.status.leader ? [two, one] : [one, two];
    await leader.stop();
    await until(() => other.relay.status.leader);
    const more = events(10);
    await append(more);
    await delivered(more);
    await other.stop();
  });

  test('a topic that Kafka refuses holds up only itself, is named, and goes on once it is granted', async () => {
    const { relay, stop } = await startRelay();
    const [refused, granted] = [events(5, 'acme/x', 'identity.changes'), events(5)];
    await append(refused);
    await until(() => 'identity.changes' in relay.status.held);
    await append(granted);
    await delivered(granted);
    assert.deepEqual(relay.status.held, { 'identity.changes': 'TOPIC_AUTHORIZATION_FAILED' });
    await until(async () => (await backlog()) === 5);
    await kafka.grant({ user: 'orchestrator', topic: 'identity.changes', operation: 'write' });
    await until(async () => (await backlog()) === 0);
    await until(() => Object.keys(relay.status.held).length === 0);
    await stop();
  });

  test('a writer wakes a relay that sleeps, and spares the lock of NOTIFY when nobody sleeps', async () => {
    const listener = await postgres.connect('service');
    let notices = 0;
    listener.on('notification', () => {
      notices += 1;
    });
    await listener.query(`listen ${outboxChannel}`);
    await append(events(1));
    await listener.query('select 1');
    assert.equal(notices, 0);
    await listener.query('select pg_advisory_lock($1, $2)', [outboxLocks.space, outboxLocks.asleep]);
    await append(events(1));
    await until(async () => {
      await listener.query('select 1');
      return notices === 1;
    });
    await listener.end();
    await pool.query('truncate outbox');
  });

  test('whenever a writer commits, its event is gone long before a relay would look by itself', async () => {
    const { stop } = await startRelay();
    const warm = events(1);
    await append(warm);
    await delivered(warm);
    const lists = Array.from({ length: 60 }, (_, index) => events(1, `acme/${index}`));
    let slowest = 0;
    for (const list of lists) {
      const committed = append(list).then(() => performance.now());
      await until(async () => firstArrivals(list).length === 1);
      slowest = Math.max(slowest, performance.now() - (await committed));
      // Every phase of the relay, awake or falling asleep, is met by some writer.
      await sleep(Math.random() * 30);
    }
    assert.ok(slowest < 1500, `one took ${Math.round(slowest)} ms`);
    await stop();
  });
});

const stringsOf = (values: object) =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, `${value}`]));
