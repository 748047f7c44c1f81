import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { TokenBatch } from './token-batch.ts';

test('keeps every character in order, in far fewer writes', async () => {
  const written: string[] = [];
  const batch = new TokenBatch(async (text) => {
    await sleep(3);
    written.push(text);
  }, 20);
  const tokens = Array.from({ length: 60 }, (_, index) => `${index} `);
  for (const token of tokens) {
    batch.add(token);
    await sleep(1);
  }
  const rest = await batch.end();
  assert.equal(written.join('') + rest, tokens.join(''));
  assert.ok(written.length <= 12, `${written.length} writes`);
});

test('a failed write stops the generation and is not retried', async () => {
  let writes = 0;
  const batch = new TokenBatch(async () => {
    writes += 1;
    throw new Error('superseded');
  }, 1);
  batch.add('a');
  await sleep(10);
  assert.throws(() => batch.add('b'), /superseded/);
  await assert.rejects(batch.end(), /superseded/);
  assert.equal(writes, 1);
});

test('the end waits for the write that runs and hands back what came meanwhile', async () => {
  const written: string[] = [];
  const batch = new TokenBatch(async (text) => {
    await sleep(10);
    written.push(text);
  }, 1);
  batch.add('first');
  await sleep(5);
  batch.add('second');
  assert.equal(await batch.end(), 'second');
  await sleep(20);
  assert.deepEqual(written, ['first']);
});

test('what is abandoned is not written', async () => {
  const written: string[] = [];
  const batch = new TokenBatch(async (text) => void written.push(text), 1000);
  batch.add('first');
  await sleep(5);
  batch.add('second');
  await batch.abandon();
  assert.deepEqual(written, ['first']);
});
