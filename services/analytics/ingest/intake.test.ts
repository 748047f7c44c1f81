import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { OutgoingEvent } from '@somagent/events';
import type { IncomingMessage } from '@somagent/kit';
import { messageOf, usageEvent } from '../testing/events.ts';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { database } from '../warehouse/warehouse.ts';
import { Classifier } from './classify.ts';
import { Evolution } from './evolution.ts';
import { Intake } from './intake.ts';
import { Positions } from './positions.ts';
import { columnsOf } from './rows.ts';

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

/** The intake as a process of its own would have it. @param dying what the process does not live to see */
async function intake({ from, dying }: { from?: bigint; dying?: 'before' | 'after' } = {}): Promise<Intake> {
  const warehouse = Object.create(store.warehouse) as TestWarehouse['warehouse'];
  warehouse.rows = (...query) => store.warehouse.rows(...query);
  warehouse.insertColumns = async (...rows) => {
    if (dying === 'before') throw new Error('died before it stored');
    await store.warehouse.insertColumns(...rows);
    if (dying === 'after') throw new Error('died before it knew');
  };
  const positions = from === undefined ? await new Positions(warehouse).all() : new Map([[place(), from]]);
  return new Intake({ warehouse, classifier: new Classifier(new Evolution(noSchemas)), positions });
}

const place = () => `${topic}/${partition}`;

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

test('messages that come again are stored once, by the same process and by the next', async () => {
  partition += 1;
  const all = messages(300);
  const first = await intake();
  await first.offer(all.slice(0, 200));
  await first.offer(all.slice(100));
  await (await intake()).offer(all.slice(200));
  // One that does not know how far it is stored.
  await (await intake({ from: 0n })).offer(all);
  assert.deepEqual(await stored(), expected(300));
});

for (const dying of ['before', 'after'] as const) {
  test(`a process that dies right ${dying} storing is followed by one that stores the same rows, once`, async () => {
    partition += 1;
    const all = messages(120);
    await assert.rejects((await intake({ dying })).offer(all.slice(0, 70)), /died/);
    assert.equal((await stored())?.rows, dying === 'after' ? 70 : 0);
    // The next one gets other messages at once, and believes that nothing is stored.
    await (await intake({ from: 0n })).offer(all.slice(0, 40));
    assert.equal((await stored())?.rows, dying === 'after' ? 70 : 40);
    await (await intake()).offer(all);
    assert.deepEqual(await stored(), expected(120));
  });
}

test('a process whose answer was lost goes on where its rows end, also when it has more messages by then', async () => {
  partition += 1;
  const all = messages(90);
  const warehouse = Object.create(store.warehouse) as TestWarehouse['warehouse'];
  let lost = 1;
  warehouse.rows = (...query) => store.warehouse.rows(...query);
  warehouse.insertColumns = async (...rows) => {
    await store.warehouse.insertColumns(...rows);
    if (lost-- > 0) throw new Error('the answer was lost');
  };
  const classifier = new Classifier(new Evolution(noSchemas));
  const own = new Intake({ warehouse, classifier, positions: new Map() });
  await assert.rejects(own.offer(all.slice(0, 30)), /lost/);
  await own.offer(all);
  assert.deepEqual(await stored(), expected(90));
});

test('processes that each believe to be alone store each message once', async () => {
  for (let round = 0; round < 2; round += 1) {
    partition += 1;
    const all = messages(400);
    const run = async (size: number) => {
      const own = await intake({ from: 0n });
      for (let from = 0; from < all.length; from += size) await own.offer(all.slice(from, from + size));
    };
    await Promise.all([run(randomInt(40, 90)), run(randomInt(40, 90)), run(randomInt(90, 300)), run(400)]);
    assert.deepEqual(await stored(), expected(400));
  }
});

test('a block has rows of one day, so that a token drops it whole or not at all', async () => {
  partition += 1;
  const dayMs = 86_400_000;
  const days = messages(60).map((_, place) =>
    incoming(usageEvent(place, { time: new Date(Date.now() - (place % 7 === 3 ? dayMs : 0)) }), place),
  );
  await (await intake()).offer(days.slice(0, 3));
  // Of a block over both days, the part of yesterday would be new and be stored, the one of today be dropped.
  await (await intake({ from: 0n })).offer(days);
  assert.deepEqual(await stored(), expected(60));
});

test('a replay stores what is missing and nothing else', async () => {
  partition += 1;
  const all = messages(80);
  await (await intake()).offer(all.slice(0, 10));
  await (await intake({ from: 20n })).offer(all.slice(20, 60));
  assert.equal((await stored())?.rows, 50);
  const positions = await new Positions(store.warehouse).all();
  const classifier = new Classifier(new Evolution(noSchemas));
  await new Intake({ warehouse: store.warehouse, classifier, positions, replay: true }).offer(all);
  assert.deepEqual(await stored(), expected(80));
});

test('a question how far it is opens the newest parts, and all of them where something is in doubt', async () => {
  const positions = new Positions(store.warehouse, 0);
  const ask = (block: number, everywhere: boolean) => {
    const own = { topic, partition: block };
    const day = new Date().toISOString().slice(0, 10);
    return positions.reached([{ place: own, table: 'usage', day, first: 0n, last: 9n, rows: [] }], everywhere);
  };
  const older = partition + 1;
  const newer = partition + 2;
  for (const own of [older, newer]) {
    partition = own;
    await (await intake()).offer(messages(10));
  }
  const found = (own: number) => new Map([[`${topic}/${own}`, 9n]]);
  assert.deepEqual(await ask(older, false), found(older));
  assert.deepEqual(await ask(newer, false), found(newer));
  const again = await ask(older, false);
  // The newer one was seen: the older is in a part before it, unless both were merged meanwhile.
  const [row] = await store.warehouse.rows<{ parts: number }>(
    `select uniqExact(_part) as parts from ${database}.usage where partition in ({older:UInt32}, {newer:UInt32})`,
    { older, newer },
  );
  assert.ok(again.size === 0 || row?.parts === 1);
  assert.deepEqual(await ask(older, true), found(older));
});

test('a mark keeps the position of a partition whose rows are gone', async () => {
  partition += 1;
  const positions = new Positions(store.warehouse);
  await positions.mark(new Map([[place(), 4711n]]));
  assert.equal((await positions.all()).get(place()), 4711n);
  await positions.mark(new Map([[place(), 4712n]]));
  assert.equal((await positions.all()).get(place()), 4712n);
});

test('under another token the same rows would be there twice: the check can convict', async () => {
  partition += 1;
  const all = messages(50);
  await (await intake()).offer(all);
  const rows = (await new Classifier(new Evolution(noSchemas)).classify(all)).map(({ row }) => row);
  await store.warehouse.insertColumns('usage', columnsOf.usage, rows, 'another-token');
  assert.deepEqual([(await stored())?.rows, (await stored())?.different], [100, 50]);
});

test('what cannot be read is put aside with its reason, and the others go on', async () => {
  partition += 1;
  const [good, later] = [usageEvent(0), usageEvent(1, { time: new Date(Date.now() + 3 * 86_400_000) })];
  const text = messageOf(good).value;
  await (await intake()).offer([
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
