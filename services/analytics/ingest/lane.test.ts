import assert from 'node:assert/strict';
import { randomInt, randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { OutgoingEvent } from '@somagent/events';
import type { IncomingMessage } from '@somagent/kit';
import { messageOf, usageEvent } from '../testing/events.ts';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { database } from '../warehouse/warehouse.ts';
import { Classifier } from './classify.ts';
import { Evolution } from './evolution.ts';
import { Journal } from './journal.ts';
import { Lane } from './lane.ts';

const topic = 'usage.tokens';
let store: TestWarehouse;
let partition = 0;
before(async () => {
  store = await startWarehouse();
});
after(() => store?.stop());

const incoming = (event: OutgoingEvent, offset: number, changed?: string): IncomingMessage => ({
  ...{ topic, partition, offset: BigInt(offset), key: event.key, headers: new Map() },
  value: Buffer.from(changed ?? messageOf(event).value),
});

const messages = (count: number) => Array.from({ length: count }, (_, place) => incoming(usageEvent(place), place));

const noSchemas = { schema: async () => undefined };

/** A lane as a process of its own would have it. @param dying what the process does not live to see */
function lane(next = 0n, dying: 'insert' | 'claim' | null = null): Lane {
  const warehouse = Object.create(store.warehouse) as TestWarehouse['warehouse'];
  warehouse.rows = (...query) => store.warehouse.rows(...query);
  warehouse.insert = async (table, rows, token) => {
    if (table !== 'cut' && dying === 'claim') throw new Error('died before it stored');
    await store.warehouse.insert(table, rows, token);
    if (table !== 'cut' && dying === 'insert') throw new Error('died before it knew');
  };
  const parts = { warehouse, journal: new Journal(warehouse), classifier: new Classifier(new Evolution(noSchemas)) };
  return new Lane({ ...parts, writer: randomUUID() }, { topic, partition }, next);
}

const stored = async () => {
  const [row] = await store.warehouse.rows<{ rows: number; different: number; tokens: number }>(
    `select count() as rows, uniqExact(offset) as different, sum(prompt_tokens + completion_tokens) as tokens
    from ${database}.usage where partition = {partition:UInt32}`,
    { partition },
  );
  return row;
};

const expected = (count: number) => {
  const tokens = Array.from({ length: count }, (_, place) => 110 + (place % 900) + (place % 90));
  return { rows: count, different: count, tokens: tokens.reduce((sum, each) => sum + each, 0) };
};

const position = async () => (await new Journal(store.warehouse).positions()).get(`${topic}/${partition}`);

test('messages that come again are stored once, by the same process and by the next', async () => {
  partition += 1;
  const all = messages(300);
  const first = lane();
  await first.offer(all.slice(0, 200));
  await first.offer(all.slice(100));
  await lane(await position()).offer(all.slice(200));
  await lane(0n).offer(all);
  assert.deepEqual(await stored(), expected(300));
});

for (const dying of ['claim', 'insert'] as const) {
  test(`a process that dies after its ${dying} is followed by one that stores the same rows, once`, async () => {
    partition += 1;
    const all = messages(120);
    await assert.rejects(lane(0n, dying).offer(all.slice(0, 70)), /died/);
    assert.equal((await stored())?.rows, dying === 'insert' ? 70 : 0);
    // The next one gets other messages at once: the cut of the first decides all the same.
    await lane(await position()).offer(all.slice(0, 40));
    assert.equal((await stored())?.rows, dying === 'insert' ? 70 : 0, 'a part of a cut is not stored');
    await lane(await position()).offer(all);
    assert.deepEqual(await stored(), expected(120));
  });
}

test('two processes that believe to be alone store each message once', async () => {
  partition += 1;
  const all = messages(400);
  const run = async (size: number) => {
    const own = lane();
    for (let from = 0; from < all.length; from += size) await own.offer(all.slice(from, from + size));
  };
  await Promise.all([run(randomInt(40, 90)), run(randomInt(40, 90)), run(400)]);
  assert.deepEqual(await stored(), expected(400));
});

test('without the journal the same rows would be there twice: the check can convict', async () => {
  partition += 1;
  const all = messages(50);
  await lane().offer(all);
  const classifier = new Classifier(new Evolution(noSchemas));
  const rows = await Promise.all(all.map(async (message) => (await classifier.classify(message)).row ?? {}));
  await store.warehouse.insert('usage', rows, 'another-token');
  assert.deepEqual([(await stored())?.rows, (await stored())?.different], [100, 50]);
});

test('what cannot be read is put aside with its reason, and the others go on', async () => {
  partition += 1;
  const [good, later] = [usageEvent(0), usageEvent(1, { time: new Date(Date.now() + 3 * 86_400_000) })];
  const text = messageOf(good).value;
  await lane().offer([
    incoming(good, 0),
    incoming(good, 1, '{"half":'),
    incoming(good, 2, text.replace('"promptTokens":100', '"promptTokens":"many"')),
    incoming(good, 3, text.replace('"tokens.used"', '"tokens.lost"')),
    incoming(later, 4),
    incoming(good, 5, text.replace('"version":2', '"version":9')),
    incoming(usageEvent(2), 6),
  ]);
  const letters = await store.warehouse.rows<{ offset: number; reason: string; tenant: string; value: string }>(
    `select offset, reason, tenant, value from ${database}.dead_letter where partition = {partition:UInt32} order by offset`,
    { partition },
  );
  assert.deepEqual(
    letters.map(({ offset, reason }) => `${offset} ${reason.replace(/time \S+/, 'time')}`),
    [
      '1 is not JSON',
      '2 event tokens.used of usage.tokens: data.promptTokens: Invalid input: expected number, received string',
      '3 type tokens.lost of usage.tokens is unknown here',
      '4 time is more than a day ahead',
      '5 version 9 of usage.tokens-tokens.used is not in the schema registry',
    ],
  );
  assert.deepEqual([letters[0]?.tenant, letters[0]?.value], ['globex', '{"half":']);
  assert.deepEqual((await stored())?.rows, 2);
});
