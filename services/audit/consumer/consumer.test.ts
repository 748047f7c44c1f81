import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { OutgoingEvent } from '@somagent/events';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { createLogger, KafkaProducer } from '@somagent/kit';
import { sql } from 'kysely';
import { AuditLog, type Offsets } from '../log/audit-log.ts';
import { leafOf } from '../log/leaf.ts';
import { startAuditDatabase, type TestAuditDatabase } from '../testing/database.ts';
import { verdictEvent } from '../testing/events.ts';
import { AuditConsumer, auditedTopics } from './consumer.ts';

// More by hand: AUDIT_KILLS=20 node --test services/audit/consumer/consumer.test.ts
const kills = Number(process.env.AUDIT_KILLS ?? 1);
const count = 1500 * (kills + 1);
const program = fileURLToPath(new URL('../testing/consume.ts', import.meta.url));
const log = createLogger({ service: 'audit-test', level: 'silent' });
let kafka: TestEventKafka;
let audit: TestAuditDatabase;
before(async () => {
  [kafka, audit] = await Promise.all([startEventKafka(), startAuditDatabase({ log_statement: 'none' })]);
});
after(() => Promise.all([kafka?.stop(), audit?.stop()]));

const events = Array.from({ length: count }, (_, place) => verdictEvent('acme', `request-${place}`));

async function send(some: readonly OutgoingEvent[]): Promise<void> {
  const producer = new KafkaProducer(await kafka.variables('gateway'), { clientId: 'gateway' });
  for (let from = 0; from < some.length; from += 500) {
    const batch = some.slice(from, from + 500);
    await producer.send(
      batch.map(({ topic, key, value, headers }) => ({ topic, key, headers, value: JSON.stringify(value) })),
    );
  }
  await producer.close();
}

const position = () => new AuditLog(audit.database).position();

/** What the log holds, in an order that does not depend on which partition came first. */
async function contents(): Promise<string[]> {
  const { rows } = await sql<{ leaf: string }>`select leaf from audit_leaf`.execute(audit.database.platform);
  return rows.map(({ leaf }) => leaf).sort();
}

async function killOnce(until: number): Promise<void> {
  const variables = { ...audit.config, ...(await kafka.variables('audit')) };
  const env = { ...process.env, ...Object.fromEntries(Object.entries(variables).map(([k, v]) => [k, String(v)])) };
  const child = spawn(process.execPath, [program, '20'], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  const exit = once(child, 'exit');
  while (child.exitCode === null && (await position()).size < until);
  child.kill('SIGKILL');
  assert.deepEqual(await exit, [null, 'SIGKILL']);
}

/** Consumes in this process until so many messages were handled. */
async function consume(messages: number): Promise<AuditConsumer> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const auditLog = new AuditLog(audit.open());
  let handled = 0;
  const counting = {
    position: () => auditLog.position(),
    append: async (leaves: Parameters<AuditLog['append']>[0], offsets?: Offsets) => {
      const appended = await auditLog.append(leaves, offsets);
      handled += leaves.length;
      if (handled >= messages) resolve();
      return appended;
    },
  };
  const consumer = new AuditConsumer({ kafka: (await kafka.variables('audit')) as never, auditLog: counting, log });
  consumer.start();
  await promise;
  await consumer.stop();
  return consumer;
}

test('the audited topics are those that the service may read', () => {
  assert.deepEqual([...auditedTopics].sort(), [
    'audit.control',
    'audit.identity',
    'audit.memory',
    'audit.session',
    'verdict.decisions',
  ]);
});

test(`every event is in the log once, with the process killed ${kills} times while it consumed`, async () => {
  await send(events);
  for (let kill = 1; kill <= kills; kill += 1) await killOnce(randomInt(1500 * (kill - 1) + 1, 1500 * kill));
  const before = (await position()).size;
  assert.ok(before > 0 && before < count, `killed at ${before} of ${count}`);
  const consumer = await consume(count - before);
  assert.equal(consumer.missed, 0);
  const { size, offsets } = await position();
  assert.equal(size, count);
  assert.equal(
    Object.values(offsets).reduce((sum, offset) => sum + Number(offset), 0),
    count,
  );
  assert.deepEqual(await contents(), events.map(({ topic, value }) => leafOf(topic, value).text).sort());
});

test('what is sent three times more changes nothing: same size, same root', async () => {
  const { size, root } = await position();
  for (let replay = 0; replay < 3; replay += 1) await send(events);
  await consume(3 * count);
  const after = await position();
  assert.deepEqual([after.size, after.root.toString('hex')], [size, root.toString('hex')]);
  // The control: an event that is new does change it.
  await send([verdictEvent('acme', 'one more')]);
  await consume(1);
  assert.equal((await position()).size, size + 1);
});
