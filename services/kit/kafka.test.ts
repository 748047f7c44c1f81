import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createAuthority } from '@somagent/bootstrap/secrets/certificates.ts';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { KafkaError, type OutgoingMessage } from './kafka.ts';
import { type IncomingMessage, KafkaConsumer } from './kafka-consumer.ts';
import { KafkaProducer } from './kafka-producer.ts';
import { createLogger } from './log.ts';

const log = createLogger({ service: 'test', level: 'silent' });
const topic = 'audit.session';
let kafka: TestEventKafka;
let folder: string;
let sent = 0;

const message = (value: string, id?: string): OutgoingMessage => ({
  topic,
  key: 'acme/one',
  value,
  headers: id === undefined ? {} : { id },
});

async function producer(user = 'orchestrator'): Promise<KafkaProducer> {
  return new KafkaProducer(await kafka.variables(user), { clientId: user });
}

/** Sends messages of which each has a number of its own in this file. */
async function sendNumbers(sink: KafkaProducer, count: number): Promise<readonly string[]> {
  const values = Array.from({ length: count }, () => String(sent++));
  await sink.send(values.map((value) => message(value)));
  return values;
}

interface Reader {
  readonly consumer: KafkaConsumer;
  readonly got: readonly IncomingMessage[];
  readonly values: () => readonly string[];
  /** Resolves once a message with this value was handled. */
  until(value: string): Promise<void>;
}

async function reader(
  options: {
    readonly before?: (messages: readonly IncomingMessage[]) => unknown;
    readonly known?: (ids: readonly string[]) => Promise<ReadonlySet<string>>;
  } = {},
): Promise<Reader> {
  const got: IncomingMessage[] = [];
  const arrivals = new EventTarget();
  const consumer = new KafkaConsumer(await kafka.variables('audit'), {
    group: 'audit',
    topics: [topic],
    log,
    ...(options.known === undefined ? {} : { known: options.known }),
    handle: async (messages) => {
      await options.before?.(messages);
      got.push(...messages);
      arrivals.dispatchEvent(new Event('some'));
    },
  });
  consumer.start();
  const values = () => got.map(({ value }) => value.toString());
  const until = async (value: string) => {
    while (!values().includes(value)) {
      await new Promise((resolve) => arrivals.addEventListener('some', resolve, { once: true }));
    }
  };
  return { consumer, got, values, until };
}

const rejects = (action: Promise<unknown>, reason: string, text: RegExp) =>
  assert.rejects(action, (error: unknown) => {
    assert.ok(error instanceof KafkaError, String(error));
    assert.equal(error.reason, reason);
    assert.match(error.message, text);
    return true;
  });

describe('Kafka', { timeout: 300_000 }, () => {
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'somagent-kit-kafka-'));
    kafka = await startEventKafka();
  });
  after(async () => {
    await kafka?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  test('what is sent arrives in order with its key, headers and bytes', async () => {
    const [sink, { consumer, got, until }] = [await producer(), await reader()];
    await sink.send([message('first', 'id-1'), message('Ünïcode', 'id-2'), message('last', 'id-3')]);
    await until('last');
    assert.deepEqual(
      got.map(({ key, value, headers }) => [key, value.toString(), headers.get('id')]),
      [
        ['acme/one', 'first', 'id-1'],
        ['acme/one', 'Ünïcode', 'id-2'],
        ['acme/one', 'last', 'id-3'],
      ],
    );
    await consumer.stop();
    await sink.close();
  });

  test('a member that comes back goes on where its group has committed', async () => {
    const sink = await producer();
    const first = await reader();
    const early = await sendNumbers(sink, 10);
    await first.until(early.at(-1) ?? '');
    await first.consumer.stop();
    const late = await sendNumbers(sink, 10);
    const second = await reader();
    await second.until(late.at(-1) ?? '');
    assert.deepEqual(second.values(), late);
    await second.consumer.stop();
    await sink.close();
  });

  test('messages whose processing fails come again, in order, and none is skipped', async () => {
    const sink = await producer();
    let failures = 2;
    const { consumer, values, until } = await reader({
      before: () => {
        failures -= 1;
        if (failures >= 0) throw new Error('the database is away');
      },
    });
    const numbers = await sendNumbers(sink, 20);
    await until(numbers.at(-1) ?? '');
    assert.deepEqual(values(), numbers);
    assert.equal(failures < 0, true);
    await consumer.stop();
    await sink.close();
  });

  test('messages that were processed before, or stand twice in a batch, are left out', async () => {
    const sink = await producer();
    const known = async (ids: readonly string[]) => new Set(ids.filter((id) => id === 'old'));
    const { consumer, values, until } = await reader({ known });
    await sink.send([message('a', 'old'), message('b', 'new'), message('c', 'new'), message('d'), message('end', 'e')]);
    await until('end');
    assert.deepEqual(values(), ['b', 'd', 'end']);
    await consumer.stop();
    await sink.close();
  });

  test('more than a request may hold is cut, and arrives whole', async () => {
    const [sink, { consumer, got, until }] = [await producer(), await reader()];
    const large = 'x'.repeat(400_000);
    await sink.send([message(`1${large}`), message(`2${large}`), message(`3${large}`), message('4')]);
    await until('4');
    assert.deepEqual(
      got.map(({ value }) => `${value.toString()[0]} ${value.length}`),
      ['1 400001', '2 400001', '3 400001', '4 1'],
    );
    await consumer.stop();
    await sink.close();
  });

  test('callers of one moment share requests, and are refused once too many wait', async () => {
    const sink = new KafkaProducer(await kafka.variables('orchestrator'), { clientId: 'test', limit: 100 });
    const accepted = Array.from({ length: 100 }, (_, index) => sink.publish(message(`p${index}`)));
    await rejects(sink.publish(message('one too many')), '100 messages wait already', /Slow down/);
    await Promise.all(accepted);
    assert.equal(sink.waiting, 0);
    const { consumer, values, until } = await reader();
    await until('p99');
    assert.deepEqual(
      values(),
      Array.from({ length: 100 }, (_, index) => `p${index}`),
    );
    await consumer.stop();
    await sink.close();
  });

  test('closing sends what waits', async () => {
    const sink = await producer();
    const last = sink.publish(message('the last words'));
    await sink.close();
    await last;
    const { consumer, until } = await reader();
    await until('the last words');
    await consumer.stop();
  });

  test('who may not write, or read, is told so with the fix', async () => {
    const sink = await producer('relations');
    await rejects(
      sink.send([message('x')]),
      'TOPIC_AUTHORIZATION_FAILED',
      /audit\.session.*services\/events\/topics\.ts/,
    );
    await sink.close();
  });

  test('a topic that nobody declared is named', async () => {
    const sink = await producer(kafka.admin.username);
    const unknown = sink.send([{ ...message('x'), topic: 'no.such' }]);
    await rejects(unknown, 'UNKNOWN_TOPIC_OR_PARTITION', /sending to no\.such: .*Declare the topic/);
    await sink.close();
  });

  test('a wrong password is told, and a corrected one is used without a restart', async () => {
    const good = await kafka.variables('orchestrator');
    const credentials = join(folder, 'credentials');
    await cp(good.KAFKA_CREDENTIALS_DIR, credentials, { recursive: true });
    await writeFile(join(credentials, 'password'), 'wrong');
    const sink = new KafkaProducer({ ...good, KAFKA_CREDENTIALS_DIR: credentials }, { clientId: 'test' });
    await rejects(sink.send([message('x')]), 'SASL_AUTHENTICATION_FAILED', /run the bootstrap command kafka/i);
    await cp(good.KAFKA_CREDENTIALS_DIR, credentials, { recursive: true });
    await sink.send([message('x')]);
    await sink.close();
  });

  test('a broker that another authority has signed is refused', async () => {
    const other = join(folder, 'other.crt');
    await writeFile(other, (await createAuthority('another authority')).certificate);
    const variables = { ...(await kafka.variables('orchestrator')), KAFKA_CA_FILE: other };
    const sink = new KafkaProducer(variables, { clientId: 'test' });
    await rejects(
      sink.send([message('x')]),
      'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
      /KAFKA_CA_FILE must hold the authority/,
    );
    await sink.close();
  });

  test('a reader that waits for brokers stops at once', async () => {
    const variables = { ...(await kafka.variables('audit')), KAFKA_BROKERS: '127.0.0.1:1' };
    const consumer = new KafkaConsumer(variables, { group: 'audit', topics: [topic], log, handle: async () => {} });
    consumer.start();
    await new Promise((resolve) => setTimeout(resolve, 300));
    const began = performance.now();
    await consumer.stop();
    const took = performance.now() - began;
    assert.ok(took < 2000, `it took ${Math.round(took)} ms`);
    assert.equal(consumer.joined, false);
  });

  test('a missing file is named at once', async () => {
    const variables = { ...(await kafka.variables('orchestrator')), KAFKA_CREDENTIALS_DIR: join(folder, 'none') };
    assert.throws(() => new KafkaProducer(variables, { clientId: 'test' }), /none\/username.*Mount .*none\/username/);
  });
});
