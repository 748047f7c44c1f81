import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { QdrantClient } from '@qdrant/js-client-rest';
import { startVectorStore, type TestVectorStore } from './testing.ts';

let store: TestVectorStore;
let client: QdrantClient;

before(async () => {
  store = await startVectorStore();
  client = new QdrantClient({ url: store.url, apiKey: store.apiKey });
});
after(() => store.stop());

const width = 32;

/** A vector that depends on its number only. */
function vector(seed: number): number[] {
  return Array.from({ length: width }, (_, index) => (Math.sin(seed * 12.9898 + index * 78.233) * 43_758.5453) % 1);
}

async function fill(name: string, count: number): Promise<void> {
  await client.createCollection(name, {
    vectors: { size: width, distance: 'Cosine' },
    optimizers_config: { indexing_threshold: 100 },
    quantization_config: { scalar: { type: 'int8', always_ram: true } },
  });
  const points = Array.from({ length: count }, (_, id) => ({ id, vector: vector(id), payload: { id } }));
  await client.upsert(name, { wait: true, points });
}

async function until(seconds: number, what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what} did not come within ${seconds} s`);
    await sleep(100);
  }
}

test('indexes are built beside the server, which answers and takes writes meanwhile', async () => {
  await fill('big', 3000);
  await until(60, 'an optimization', async () => (await client.getCollection('big')).status === 'yellow');
  let slowest = 0;
  let writes = 0;
  await until(60, 'the index', async () => {
    const started = performance.now();
    await client.query('big', { query: vector(1), limit: 1 });
    await client.upsert('big', { points: [{ id: 100_000 + writes, vector: vector(writes), payload: { late: true } }] });
    slowest = Math.max(slowest, performance.now() - started);
    writes += 1;
    return ((await client.getCollection('big')).indexed_vectors_count ?? 0) >= 3000;
  });
  assert.ok(writes > 0);
  assert.equal((await client.count('big')).count, 3000 + writes, 'what was written meanwhile is there');
  assert.equal(
    (await client.count('big', { filter: { must: [{ key: 'late', match: { value: true } }] } })).count,
    writes,
  );
  const { points } = await client.query('big', {
    query: vector(1234),
    limit: 1,
    params: { quantization: { rescore: true } },
  });
  assert.equal(points[0]?.id, 1234);
  assert.ok(slowest < 5000, `the slowest pair of calls took ${slowest} ms`);
});

test('a change over to the new index that is killed leaves one whole shard', async () => {
  await fill('killed', 3000);
  await until(60, 'an optimization', async () => (await client.getCollection('killed')).status === 'yellow');
  await store.kill();
  await store.start();
  assert.equal((await client.count('killed')).count, 3000);
  await until(60, 'the index', async () => ((await client.getCollection('killed')).indexed_vectors_count ?? 0) >= 3000);
});

test('what was deleted leaves the disk', async () => {
  const secret = 'the-safe-opens-with-38-17-22';
  await client.createCollection('forget', { vectors: { size: width, distance: 'Cosine' } });
  const points = Array.from({ length: 50 }, (_, id) => ({
    id,
    vector: vector(id),
    payload: { text: `${secret}-${id}` },
  }));
  await client.upsert('forget', { wait: true, points });
  assert.ok(await onDisk(`${secret}-7"`), 'the search finds what is there');
  await client.delete('forget', { wait: true, points: [7] });
  await until(60, 'the purge', async () => !(await onDisk(`${secret}-7"`)));
  assert.ok(await onDisk(`${secret}-8"`));
  assert.equal((await client.count('forget')).count, 49);
});

/** Whether the bytes stand in any file of the server. */
async function onDisk(text: string): Promise<boolean> {
  try {
    await promisify(execFile)('grep', ['-r', '-F', '-l', '-a', text, join(store.folder, 'data')]);
    return true;
  } catch (error) {
    // 2: a file went away meanwhile, so it is too early to say that nothing is left.
    return (error as { code?: number }).code !== 1;
  }
}
