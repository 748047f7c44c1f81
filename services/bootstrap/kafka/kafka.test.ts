import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import {
  AclOperations,
  AclPermissionTypes,
  Admin,
  Consumer,
  IncrementalAlterConfigOperationTypes,
  Producer,
  ResourcePatternTypes,
  ResourceTypes,
} from '@platformatic/kafka';
import { Failure } from '../failure.ts';
import type { Credentials } from '../settings.ts';
import { startKafka, type TestKafka } from '../testing/kafka.ts';
import { waitFor } from '../wait.ts';
import { reconcile, runKafka } from './command.ts';
import { type Brokers, clientOptions, withAdmin } from './connect.ts';
import { type KafkaPlan, kafkaPlan } from './plan.ts';
import { canSignIn } from './users.ts';

const writer = { username: 'writer', password: 'the-password-of-the-writer' };
const reader = { username: 'reader', password: 'the-password-of-the-reader' };
const users = [writer, reader];

const plan = (changes: Partial<KafkaPlan> = {}): KafkaPlan =>
  kafkaPlan.parse({
    topics: [
      { name: 'audit.session', partitions: 3, replicas: 3, config: { 'retention.ms': '2592000000' } },
      { name: 'identity.changes', partitions: 2, replicas: 3, config: {} },
    ],
    users: users.map(({ username }) => ({ name: username })),
    acls: [
      { user: 'writer', resource: { type: 'topic', name: 'audit.session' }, operations: ['write'] },
      { user: 'reader', resource: { type: 'topic', name: 'audit.session' }, operations: ['read'] },
      { user: 'reader', resource: { type: 'group', name: 'reader' }, operations: ['read'] },
    ],
    ...changes,
  });

let kafka: TestKafka;
let brokers: Brokers;

before(async () => {
  kafka = await startKafka({ nodes: 3 });
  brokers = { addresses: kafka.brokers, ca: kafka.ca };
  await atEachBroker('all brokers', async (one) => {
    const known = await withAdmin(one, kafka.admin, (admin) => admin.metadata({ topics: [], forceUpdate: true }));
    assert.equal(known.brokers.size, kafka.brokers.length);
  });
});
after(() => kafka?.stop());

const apply = (changes: Partial<KafkaPlan> = {}, secrets: readonly Credentials[] = users) =>
  reconcile(brokers, kafka.admin, plan(changes), secrets);
const asAdmin = <T>(work: (admin: Admin) => Promise<T>): Promise<T> => withAdmin(brokers, kafka.admin, work);
const nothing = { created: 0, repaired: 0, removed: 0 };

/** Each broker applies a change a moment after the controller has acknowledged it. */
async function atEachBroker(name: string, check: (one: Brokers) => Promise<void>): Promise<void> {
  for (const address of brokers.addresses) {
    await waitFor({ name, address, fix: '' }, () => check({ ...brokers, addresses: [address] }), { seconds: 20 });
  }
}

function becomes(user: Credentials, admitted: boolean): Promise<void> {
  return atEachBroker('the credential', async (one) => {
    assert.equal(await canSignIn(one, user), admitted, `${user.username} at ${one.addresses.join()}`);
  });
}

/** The rules are the last of a plan; brokers apply changes in the order in which they were made. */
function ruleIsInForce(user: string, resourceName: string): Promise<void> {
  return atEachBroker('the rule', async (one) => {
    const [resource] = await withAdmin(one, kafka.admin, (admin) =>
      admin.describeAcls({
        filter: {
          ...{ resourceType: ResourceTypes.GROUP, resourceName, resourcePatternType: ResourcePatternTypes.LITERAL },
          ...{ principal: `User:${user}`, host: null },
          ...{ operation: AclOperations.ANY, permissionType: AclPermissionTypes.ANY },
        },
      }),
    );
    assert.equal(resource?.acls.length, 1, `the rule of ${user} at ${one.addresses.join()}`);
  });
}

/** The error that the brokers give to a user, by Kafka's own name. */
async function refusal(attempt: Promise<unknown>): Promise<string> {
  const error: unknown = await attempt.then(
    () => new Error('it was allowed'),
    (reason: unknown) => reason,
  );
  const texts: string[] = [];
  const collect = (value: unknown): void => {
    if (!(value instanceof Error)) return;
    texts.push(String((value as { apiId?: unknown }).apiId ?? value.message));
    if (value instanceof AggregateError) value.errors.forEach(collect);
    collect(value.cause);
  };
  collect(error);
  return texts.join(' | ');
}

async function produce(user: Credentials, topic: string, value: string): Promise<void> {
  const producer = new Producer({ ...clientOptions(brokers, user), retries: 100, autocreateTopics: false });
  try {
    await producer.send({ messages: [{ topic, key: Buffer.from('acme/1'), value: Buffer.from(value) }], acks: -1 });
  } finally {
    await producer.close();
  }
}

async function consume(user: Credentials, topic: string, groupId: string): Promise<string> {
  const consumer = new Consumer({ ...clientOptions(brokers, user), retries: 20, groupId });
  try {
    const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false });
    const [message] = (await once(stream, 'data')) as [{ readonly value: Buffer }];
    return message.value.toString();
  } finally {
    await consumer.close(true);
  }
}

describe('a plan', () => {
  test('is carried out once; again it changes nothing', async () => {
    assert.deepEqual(await apply(), { ...nothing, created: 7, unchanged: 0 });
    await ruleIsInForce('reader', 'reader');
    assert.deepEqual(await apply(), { ...nothing, unchanged: 7 });
    const { topics } = await asAdmin((admin) => admin.metadata({ topics: ['audit.session'], forceUpdate: true }));
    assert.deepEqual(
      topics.get('audit.session')?.partitions.map(({ replicas }) => replicas.length),
      [3, 3, 3],
    );
  });

  test('removes a user that nobody declared', async () => {
    const intruder = { username: 'intruder', password: 'the-password-of-an-intruder' };
    await apply({ users: [...plan().users, { name: 'intruder' }] }, [...users, intruder]);
    await becomes(intruder, true);
    assert.deepEqual(await apply(), { ...nothing, removed: 1, unchanged: 7 });
    await becomes(intruder, false);
  });

  test('repairs exactly the settings and rules that differ', async () => {
    const { SET } = IncrementalAlterConfigOperationTypes;
    const configs = [
      { name: 'retention.ms', configOperation: SET, value: '1000' },
      { name: 'max.message.bytes', configOperation: SET, value: '4096' },
    ];
    const rule = {
      ...{ resourceType: ResourceTypes.TOPIC, resourceName: '*', resourcePatternType: ResourcePatternTypes.LITERAL },
      ...{ principal: 'User:reader', host: '*', operation: AclOperations.ALL },
      permissionType: AclPermissionTypes.ALLOW,
    };
    await asAdmin(async (admin) => {
      await admin.incrementalAlterConfigs({ resources: [{ resourceType: 2, resourceName: 'audit.session', configs }] });
      await admin.createAcls({ creations: [rule] });
    });
    assert.deepEqual(await apply(), { created: 0, repaired: 2, removed: 1, unchanged: 6 });
    const [described] = await asAdmin((admin) =>
      admin.describeConfigs({ resources: [{ resourceType: 2, resourceName: 'audit.session' }] }),
    );
    const own = described?.configs.filter(({ configSource }) => configSource === 1);
    assert.deepEqual(
      own?.map(({ name, value }) => [name, value]),
      [['retention.ms', '2592000000']],
    );
  });

  test('sets a rotated password, and the old one no longer signs in', async () => {
    const rotated = { username: 'writer', password: 'another-password-of-the-writer' };
    const counts = await apply({}, [rotated, reader]);
    assert.deepEqual(counts, { created: 0, repaired: 1, removed: 0, unchanged: 6 });
    await becomes(writer, false);
    await becomes(rotated, true);
    await apply();
    await becomes(writer, true);
  });

  test('may add partitions and never takes any away; then nothing at all is done', async () => {
    const [session, changes] = plan().topics;
    assert.ok(session !== undefined && changes !== undefined);
    const sized = (partitions: number) => [session, { ...changes, partitions }];
    assert.deepEqual(await apply({ topics: sized(3) }), { ...nothing, repaired: 1, unchanged: 6 });
    const smaller = [{ name: 'new.topic', partitions: 1, replicas: 3, config: {} }, ...sized(1)];
    await assert.rejects(apply({ topics: smaller }), (error: Failure) => {
      assert.ok(error instanceof Failure);
      assert.match(error.message, /^topic identity\.changes: partitions is 1 in the plan, the topic has 3/);
      assert.match(error.fix, /declare partitions: 3 for identity\.changes/);
      return true;
    });
    assert.deepEqual((await asAdmin((admin) => admin.listTopics({}))).toSorted(), [
      'audit.session',
      'identity.changes',
    ]);
  });

  test('that was cut short by SIGKILL is finished by the next run', async () => {
    const topic = { partitions: 3, replicas: 3, config: {} };
    const names = Array.from({ length: 12 }, (_, index) => `cut.short.${index}`);
    const topics = ['audit.session', 'identity.changes', ...names].map((name) => ({ ...topic, name }));
    const environment = await folderOf(plan({ topics }));
    const first = command(environment);
    await lineOf(first, /"topic created"/);
    first.kill('SIGKILL');
    await once(first, 'exit');
    const present = await asAdmin((admin) => admin.listTopics({}));
    assert.ok(present.length < 14, 'the run was not cut short');
    await runKafka(environment);
    assert.equal((await asAdmin((admin) => admin.listTopics({}))).length, 14);
    await asAdmin((admin) => admin.deleteTopics({ topics: names }));
  });

  test('with a wrong administrator is refused at once, with the reason', async () => {
    const environment = await folderOf(plan(), { ...kafka.admin, password: 'wrong' });
    await assert.rejects(runKafka(environment), (error: Failure) => {
      assert.match(error.message, /^Kafka at .* refused: .*/);
      assert.match(error.fix, /Secrets kafka-admin/);
      return true;
    });
  });
});

describe('rights', () => {
  test('a granted user produces, a granted user consumes', async () => {
    await produce(writer, 'audit.session', 'hello');
    assert.equal(await consume(reader, 'audit.session', 'reader'), 'hello');
  });

  test('without a grant nobody produces, consumes, joins a group or creates a topic', async () => {
    assert.match(await refusal(produce(reader, 'audit.session', 'x')), /TOPIC_AUTHORIZATION_FAILED/);
    assert.match(await refusal(produce(writer, 'identity.changes', 'x')), /TOPIC_AUTHORIZATION_FAILED/);
    assert.match(await refusal(consume(writer, 'audit.session', 'writer')), /AUTHORIZATION_FAILED/);
    assert.match(await refusal(consume(reader, 'audit.session', 'other')), /GROUP_AUTHORIZATION_FAILED/);
    const create = withAdmin(brokers, writer, (admin) =>
      admin.createTopics({ topics: ['mine'], partitions: 1, replicas: 1 }),
    );
    assert.match(await refusal(create), /AUTHORIZATION_FAILED/);
    const widen = withAdmin(brokers, writer, (admin) => reconcileAsUser(admin));
    assert.match(await refusal(widen), /CLUSTER_AUTHORIZATION_FAILED/);
  });

  const reconcileAsUser = (admin: Admin) =>
    admin.createAcls({
      creations: [
        {
          ...{
            resourceType: ResourceTypes.TOPIC,
            resourceName: '*',
            resourcePatternType: ResourcePatternTypes.LITERAL,
          },
          ...{ principal: 'User:writer', host: '*', operation: AclOperations.ALL },
          permissionType: AclPermissionTypes.ALLOW,
        },
      ],
    });
});

describe('the way in', () => {
  test('a wrong password and an unknown user are refused', async () => {
    assert.equal(await canSignIn(brokers, writer), true);
    assert.equal(await canSignIn(brokers, { ...writer, password: 'wrong' }), false);
    assert.equal(await canSignIn(brokers, { username: 'nobody', password: 'wrong' }), false);
  });

  test('plaintext is refused', async () => {
    const { tls: _tls, sasl: _sasl, ...plain } = clientOptions(brokers, writer);
    const client = new Admin({ ...plain, retries: 0, connectTimeout: 2000, timeout: 2000, requestTimeout: 2000 });
    await assert.rejects(client.metadata({ topics: [] }));
    await client.close();
    const socket = connectPlain(addressOf(kafka.brokers[0] ?? ''));
    socket.write(Buffer.from('000000140012000000000001000474657374', 'hex'));
    const [first] = await Promise.race([once(socket, 'data'), once(socket, 'close')]);
    assert.ok(!Buffer.isBuffer(first) || first[0] === 0x15, 'anything but a TLS alert was answered');
    socket.destroy();
  });

  test('TLS without a password is refused', async () => {
    const { sasl: _sasl, ...anonymous } = clientOptions(brokers, writer);
    const client = new Admin({ ...anonymous, retries: 0, requestTimeout: 2000 });
    await assert.rejects(client.metadata({ topics: [] }));
    await client.close();
  });

  test('the brokers among themselves admit only certificates of the authority', async () => {
    const socket = connectTls({ ...addressOf(kafka.brokersListener(0)), ca: kafka.ca });
    const [error] = (await once(socket, 'error')) as [Error & { code?: string }];
    assert.match(error.code ?? '', /ALERT_(BAD_CERTIFICATE|CERTIFICATE_REQUIRED)$/);
  });

  test('a certificate of the authority makes nobody a broker: its common name does', async () => {
    const topic = { topics: ['by.certificate'], partitions: 1, replicas: 1 };
    const through = async (commonName: string) => {
      const { certificate, key } = await kafka.clientCertificate(commonName);
      const { sasl: _sasl, ...options } = clientOptions(brokers, writer);
      const bootstrapBrokers = [kafka.brokersListener(0)];
      return new Admin({ ...options, bootstrapBrokers, tls: { ca: kafka.ca, cert: certificate, key } });
    };
    const stranger = await through('temporal-client');
    assert.match(await refusal(stranger.createTopics(topic)), /AUTHORIZATION_FAILED/);
    await stranger.close();
    const broker = await through('kafka-broker');
    await broker.createTopics(topic);
    await broker.deleteTopics({ topics: topic.topics });
    await broker.close();
  });

  test('a renewed certificate is used without a restart', async () => {
    const before = await serial();
    const { certificate } = await kafka.renewCertificate();
    const expected = new X509Certificate(certificate).serialNumber;
    assert.notEqual(before, expected);
    await waitFor(
      { name: 'the renewed certificate', address: '', fix: '' },
      async () => {
        assert.equal(await serial(), expected);
      },
      { seconds: 20 },
    );
    assert.equal(await canSignIn(brokers, writer), true);
  });

  async function serial(): Promise<string> {
    const socket = connectTls({ ...addressOf(kafka.brokers[0] ?? ''), ca: kafka.ca });
    await once(socket, 'secureConnect');
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  }
});

test('no password and no stored credential is in the log of a broker', async () => {
  for (const node of [0, 1, 2]) {
    const text = await kafka.log(node);
    for (const { password } of [...users, kafka.admin]) assert.equal(text.includes(password), false);
    assert.doesNotMatch(text, /storedKey|serverKey|saltedPassword/i);
    assert.match(text, /Kafka Server started/);
  }
  const texts = await Promise.all([0, 1, 2].map((node) => kafka.log(node)));
  assert.match(texts.join(''), /Principal = User:reader is Denied operation = WRITE/, 'a refusal is not in the log');
});

test('writes go on while one of three is dead; readiness falls when the quorum is lost', async () => {
  await kafka.kill(2);
  await produce(writer, 'audit.session', 'with two of three');
  assert.deepEqual(await Promise.all([0, 1].map((node) => kafka.ready(node))), [true, true]);
  await kafka.kill(1);
  await waitFor({ name: 'unreadiness', address: '', fix: '' }, async () => assert.equal(await kafka.ready(0), false), {
    seconds: 30,
  });
  await Promise.all([kafka.start(1), kafka.start(2)]);
  assert.deepEqual(await Promise.all([0, 1, 2].map((node) => kafka.ready(node))), [true, true, true]);
  const { topics } = await asAdmin((admin) => admin.metadata({ topics: ['audit.session'], forceUpdate: true }));
  for (const { isr } of topics.get('audit.session')?.partitions ?? []) assert.equal(isr.length, 3, 'ready, yet behind');
});

function addressOf(address: string): { host: string; port: number } {
  const [host = '', port = ''] = address.split(':');
  return { host, port: Number(port) };
}

/** What the Job gets: the plan and the credentials as files. */
async function folderOf(document: KafkaPlan, admin: Credentials = kafka.admin): Promise<Record<string, string>> {
  const file = join(kafka.folder, `plan-${Math.random().toString(36).slice(2)}.json`);
  await writeFile(file, JSON.stringify(document));
  for (const user of users) await kafka.credentialsFolder(user, `users/${user.username}`);
  return {
    PLAN: file,
    KAFKA_BROKERS: kafka.brokers.join(','),
    KAFKA_CA_FILE: kafka.caFile,
    ADMIN_DIR: await kafka.credentialsFolder(admin, `admin-of-the-job`),
    USERS_DIR: join(kafka.folder, 'users'),
    WAIT_SECONDS: '30',
  };
}

function command(environment: Readonly<Record<string, string>>): ChildProcess {
  const main = join(import.meta.dirname, '../main.ts');
  return spawn(process.execPath, [main, 'kafka'], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** Waits until a program has written a line. */
async function lineOf(child: ChildProcess, pattern: RegExp): Promise<void> {
  let text = '';
  for await (const chunk of child.stdout ?? []) {
    text += String(chunk);
    if (pattern.test(text)) return;
  }
  throw new Error(`it ended without ${pattern}: ${text}`);
}
