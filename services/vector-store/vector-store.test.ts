import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { QdrantClient } from '@qdrant/js-client-rest';
import { startVectorStore, type TestVectorStore } from './testing.ts';

let store: TestVectorStore;
let client: QdrantClient;
let reader: QdrantClient;

before(async () => {
  store = await startVectorStore();
  client = new QdrantClient({ url: store.url, apiKey: store.apiKey });
  reader = new QdrantClient({ url: store.url, apiKey: store.readOnlyApiKey });
});
after(() => store.stop());

type Point = { id: number | string; vector: number[]; payload?: Record<string, unknown> };

/** Points 1…n on a circle in two dimensions, with a tenant, a number and a text each. */
function circle(count: number): Point[] {
  return Array.from({ length: count }, (_, index) => ({
    id: index + 1,
    vector: [Math.cos(index / 10), Math.sin(index / 10)],
    payload: {
      tenant: index % 2 === 0 ? 'acme' : 'globex',
      n: index,
      tags: [`t${index % 3}`],
      even: index % 2 === 0,
      at: day(index),
    },
  }));
}

const day = (index: number): string => new Date(Date.UTC(2026, 0, 1 + index)).toISOString();

async function collection(points: Point[] = circle(20)): Promise<string> {
  const name = `c-${randomUUID()}`;
  await client.createCollection(name, { vectors: { size: 2, distance: 'Cosine' } });
  if (points.length > 0) await client.upsert(name, { wait: true, points });
  return name;
}

const status = (expected: number, pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Error, String(error));
  assert.equal((error as Error & { status?: number }).status, expected, error.message);
  assert.match(JSON.stringify((error as Error & { data?: unknown }).data) ?? error.message, pattern);
  return true;
};

async function idsWhere(name: string, filter: Record<string, unknown>): Promise<(number | string)[]> {
  const { points } = await client.scroll(name, { filter, limit: 100, with_payload: false });
  return points.map(({ id }) => id);
}

test('a collection is made, described, listed, changed and dropped', async () => {
  const name = await collection();
  assert.deepEqual(await client.collectionExists(name), { exists: true });
  const described = await client.getCollection(name);
  assert.equal(described.points_count, 20);
  assert.deepEqual(described.config.params.vectors, { size: 2, distance: 'Cosine' });
  assert.equal((await client.getCollections()).collections.filter((each) => each.name === name).length, 1);
  await assert.rejects(
    client.createCollection(name, { vectors: { size: 2, distance: 'Cosine' } }),
    status(409, /already exists/),
  );
  await client.updateCollection(name, { hnsw_config: { m: 8 } });
  assert.equal((await client.getCollection(name)).config.hnsw_config.m, 8);
  assert.equal(await client.deleteCollection(name), true);
  assert.deepEqual(await client.collectionExists(name), { exists: false });
  await assert.rejects(client.getCollection(name), status(404, /doesn't exist/));
});

test('the nearest come first, with payload, threshold and offset as asked', async () => {
  const name = await collection();
  const { points } = await client.query(name, { query: [1, 0], limit: 3, with_payload: ['n'] });
  assert.deepEqual(
    points.map(({ id, payload }) => [id, payload]),
    [
      [1, { n: 0 }],
      [2, { n: 1 }],
      [3, { n: 2 }],
    ],
  );
  assert.ok(Math.abs((points[1]?.score ?? 0) - Math.cos(0.1)) < 1e-6);
  const far = await client.query(name, { query: [1, 0], limit: 20, score_threshold: Math.cos(0.25) });
  assert.deepEqual(
    far.points.map(({ id }) => id),
    [1, 2, 3],
  );
  assert.equal(far.points[0]?.payload, undefined);
  const byId = await client.query(name, { query: 5, limit: 2, offset: 0, with_vector: true });
  assert.deepEqual(new Set(byId.points.map(({ id }) => id)), new Set([4, 6]), 'a point is not its own neighbour');
  assert.deepEqual(
    (await client.query(name, { query: [1, 0], limit: 2, offset: 1 })).points.map(({ id }) => id),
    [2, 3],
  );
});

test('filters: must, should, must_not, match, range, dates, ids, empty, nested filters', async () => {
  const name = await collection();
  const acme = { key: 'tenant', match: { value: 'acme' } };
  assert.deepEqual(await idsWhere(name, { must: [acme, { key: 'n', range: { gte: 4, lt: 9 } }] }), [5, 7, 9]);
  assert.deepEqual(await idsWhere(name, { must_not: [acme], must: [{ key: 'n', range: { lte: 3 } }] }), [2, 4]);
  assert.deepEqual(
    await idsWhere(name, { should: [{ has_id: [3, 4] }, { key: 'n', match: { value: 0 } }] }),
    [1, 3, 4],
  );
  assert.deepEqual(
    await idsWhere(name, { must: { key: 'tags', match: { any: ['t1'] } }, must_not: [{ key: 'n', range: { gt: 5 } }] }),
    [2, 5],
  );
  assert.deepEqual(await idsWhere(name, { must: [{ key: 'at', range: { lt: '2026-01-03T00:00:00Z' } }] }), [1, 2]);
  assert.deepEqual(await idsWhere(name, { must: [{ should: [{ has_id: [1] }, { has_id: [2] }] }, acme] }), [1]);
  const odd = [
    { key: 'even', match: { value: false } },
    { key: 'n', range: { lt: 4 } },
  ];
  assert.deepEqual(await idsWhere(name, { must: odd }), [2, 4]);
  assert.equal((await idsWhere(name, { must: [{ is_empty: { key: 'absent' } }] })).length, 20);
  assert.deepEqual(await idsWhere(name, { must: [{ key: 'tenant', match: { except: ['acme', 'globex'] } }] }), []);
  const { points } = await client.query(name, {
    query: [1, 0],
    filter: { must: [{ key: 'tenant', match: { value: 'globex' } }] },
    limit: 2,
  });
  assert.deepEqual(
    points.map(({ id }) => id),
    [2, 4],
  );
});

test('a payload index is made, shown and used for order; without it the engine says what to do', async () => {
  const name = await collection();
  await assert.rejects(client.scroll(name, { order_by: 'n' }), status(400, /No range index/));
  await client.createPayloadIndex(name, { wait: true, field_name: 'n', field_schema: 'integer' });
  await client.createPayloadIndex(name, {
    wait: true,
    field_name: 'tenant',
    field_schema: { type: 'keyword', is_tenant: true },
  });
  const { payload_schema } = await client.getCollection(name);
  assert.equal(payload_schema.n?.data_type, 'integer');
  assert.equal(payload_schema.tenant?.points, 20);
  const { points } = await client.scroll(name, { order_by: { key: 'n', direction: 'desc' }, limit: 2 });
  assert.deepEqual(
    points.map(({ id }) => id),
    [20, 19],
  );
  await client.deletePayloadIndex(name, 'n', { wait: true });
  assert.equal((await client.getCollection(name)).payload_schema.n, undefined);
});

test('scrolling by pages gives every point once', async () => {
  const name = await collection(circle(25));
  const seen: (number | string)[] = [];
  let offset: number | string | undefined;
  do {
    const page = await client.scroll(name, { limit: 10, ...(offset !== undefined && { offset }) });
    seen.push(...page.points.map(({ id }) => id));
    offset = (page.next_page_offset ?? undefined) as typeof offset;
  } while (offset !== undefined);
  assert.deepEqual(
    seen,
    circle(25).map(({ id }) => id),
  );
});

test('payloads are set, replaced, shortened and cleared; points deleted by id and by filter', async () => {
  const name = await collection();
  await client.setPayload(name, { wait: true, payload: { seen: true }, points: [1] });
  assert.equal((await client.retrieve(name, { ids: [1] }))[0]?.payload?.seen, true);
  await client.overwritePayload(name, { wait: true, payload: { only: 1 }, points: [1] });
  assert.deepEqual((await client.retrieve(name, { ids: [1] }))[0]?.payload, { only: 1 });
  await client.deletePayload(name, { wait: true, keys: ['n'], filter: { must: [{ has_id: [2] }] } });
  assert.deepEqual(Object.keys((await client.retrieve(name, { ids: [2] }))[0]?.payload ?? {}).sort(), [
    'at',
    'even',
    'tags',
    'tenant',
  ]);
  await client.clearPayload(name, { wait: true, points: [3] });
  assert.deepEqual((await client.retrieve(name, { ids: [3] }))[0]?.payload, {});
  await client.delete(name, { wait: true, points: [4, 5] });
  await client.delete(name, { wait: true, filter: { must: [{ key: 'tenant', match: { value: 'globex' } }] } });
  assert.equal((await client.count(name, { exact: true })).count, 9);
  assert.deepEqual(await client.retrieve(name, { ids: [4, 5, 6] }), []);
});

test('identifiers are numbers or UUIDs, and come back as they went in', async () => {
  const id = randomUUID();
  const name = await collection([
    { id, vector: [1, 0] },
    { id: 7, vector: [0, 1] },
  ]);
  assert.deepEqual(
    (await client.query(name, { query: [1, 0] })).points.map((point) => point.id),
    [id, 7],
  );
  await assert.rejects(client.retrieve(name, { ids: ['not-an-id'] }), status(400, /not a valid point ID/));
});

test('wrong input is refused with the field and the reason, and changes nothing', async () => {
  const name = await collection();
  await assert.rejects(
    client.upsert(name, { points: [{ id: 1, vector: [1, 2, 3] }] }),
    status(400, /expected dim: 2, got 3/),
  );
  const mixed = [
    { id: 90, vector: [1, 1] },
    { id: 91, vector: [1] },
  ];
  await assert.rejects(client.upsert(name, { points: mixed }), status(400, /expected dim: 2, got 1/));
  assert.deepEqual(await client.retrieve(name, { ids: [90, 91] }), []);
  const raw = (path: string, body: string) =>
    fetch(`${store.url}/collections/${name}${path}`, {
      method: 'POST',
      headers: { 'api-key': store.apiKey, 'content-type': 'application/json' },
      body,
    });
  const broken = await raw('/points/scroll', '{');
  assert.equal(broken.status, 400);
  assert.match(((await broken.json()) as { status: { error: string } }).status.error, /Format error in JSON body/);
  const unknown = await raw('/points/scroll', '{"filter":{"must":[{"key":"n","geo_polygon":{}}]}}');
  assert.equal(unknown.status, 501, 'what is not understood is not ignored');
  assert.equal((await raw('/points/search', '{}')).status, 501);
  await assert.rejects(
    client.createCollection(`c-${randomUUID()}`, { vectors: { size: 2, distance: 'Dot' }, shard_number: 2 }),
    status(501, /shard_number/),
  );
});

test('who has no key, a wrong one or the reading one is held to it', async () => {
  const name = await collection();
  for (const headers of [{}, { 'api-key': 'wrong' }, { 'api-key': `${store.apiKey}x` }]) {
    const answer = await fetch(`${store.url}/collections`, { headers });
    assert.equal(answer.status, 401);
  }
  assert.equal(
    (await fetch(`${store.url}/collections`, { headers: { authorization: `Bearer ${store.apiKey}` } })).status,
    200,
  );
  assert.equal((await reader.count(name)).count, 20);
  await assert.rejects(reader.delete(name, { points: [1] }), status(403, /Forbidden/));
  await assert.rejects(reader.deleteCollection(name), status(403, /Forbidden/));
  assert.equal((await client.count(name)).count, 20);
  assert.equal((await fetch(`${store.url}/readyz`)).status, 200);
  await assert.rejects(fetch(store.url.replace('https:', 'http:')), /fetch failed/);
});

test('a rotated key is in force at the next request', async () => {
  const next = 'n'.repeat(40);
  await writeFile(`${store.apiKeyFile}.next`, next);
  await rename(`${store.apiKeyFile}.next`, store.apiKeyFile);
  const get = (key: string) => fetch(`${store.url}/collections`, { headers: { 'api-key': key } });
  assert.equal((await get(next)).status, 200);
  assert.equal((await get(store.apiKey)).status, 401);
  await writeFile(store.apiKeyFile, store.apiKey);
  assert.equal((await get(store.apiKey)).status, 200);
});

test('named, sparse and multiple searches: fusion of a dense and a sparse vector', async () => {
  const name = `c-${randomUUID()}`;
  await client.createCollection(name, {
    vectors: { text: { size: 2, distance: 'Cosine' } },
    sparse_vectors: { words: { modifier: 'idf' } },
  });
  const words = (...indices: number[]) => ({ indices, values: indices.map(() => 1) });
  await client.upsert(name, {
    wait: true,
    points: [
      { id: 1, vector: { text: [1, 0], words: words(1, 2) } },
      { id: 2, vector: { text: [0.9, 0.1], words: words(3) } },
      { id: 3, vector: { text: [0, 1], words: words(3, 4) } },
    ],
  });
  const sparse = await client.query(name, { query: words(4), using: 'words', limit: 5 });
  assert.deepEqual(
    sparse.points.map(({ id }) => id),
    [3],
  );
  const prefetch = [
    { query: [1, 0], using: 'text', limit: 2 },
    { query: words(3), using: 'words', limit: 2 },
  ];
  const fused = await client.query(name, { prefetch, query: { fusion: 'rrf' }, limit: 3 });
  assert.equal(fused.points[0]?.id, 2, 'the one that both find is first');
  const batch = await client.queryBatch(name, {
    searches: [
      { query: [1, 0], using: 'text', limit: 1 },
      { query: [0, 1], using: 'text', limit: 1 },
    ],
  });
  assert.deepEqual(
    batch.map(({ points }) => points[0]?.id),
    [1, 3],
  );
});

test('what was acknowledged survives a kill, again and again', async () => {
  const name = await collection([]);
  const acknowledged: number[] = [];
  for (const round of [0, 1, 2]) {
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let n = 0; ; n += 1) {
        const id = round * 1_000_000 + writer * 100_000 + n;
        try {
          await client.upsert(name, { wait: n % 2 === 0, points: [{ id, vector: [1, n], payload: { id } }] });
        } catch {
          return;
        }
        acknowledged.push(id);
      }
    });
    while (acknowledged.length < (round + 1) * 20) await sleep(5);
    await store.kill();
    await Promise.all(writers);
    await store.start();
    const found = await client.retrieve(name, { ids: acknowledged, with_vector: false });
    assert.deepEqual(new Set(found.map(({ id }) => id)), new Set(acknowledged));
    assert.ok(found.every(({ id, payload }) => payload?.id === id));
  }
});

test('a snapshot is made, listed, fetched, and brings back what was there; a damaged one does not', async () => {
  const name = await collection();
  await client.createPayloadIndex(name, { wait: true, field_name: 'tenant', field_schema: 'keyword' });
  const made = await client.createSnapshot(name);
  assert.ok(made !== null && (made.checksum ?? '').length === 64);
  assert.deepEqual(await client.listSnapshots(name), [made]);
  await client.delete(name, { wait: true, filter: {} });
  await client.upsert(name, { wait: true, points: [{ id: 99, vector: [1, 0] }] });
  const location = `file://${join(store.folder, 'data/snapshots', name, made.name)}`;
  await assert.rejects(
    client.recoverSnapshot(name, { location, checksum: '0'.repeat(64) }),
    status(400, /checksum mismatch/),
  );
  assert.equal((await client.count(name)).count, 1);
  assert.equal(await client.recoverSnapshot(name, { location }), true);
  assert.deepEqual((await idsWhere(name, {})).length, 20);
  assert.equal((await client.getCollection(name)).payload_schema.tenant?.data_type, 'keyword');
  // By upload, into a collection that does not exist yet.
  const url = `${store.url}/collections/${name}/snapshots/${made.name}`;
  const file = await (await fetch(url, { headers: { 'api-key': store.apiKey } })).blob();
  const upload = (content: Blob, target: string) => {
    const body = new FormData();
    body.append('snapshot', content, 'x.snapshot');
    const headers = { 'api-key': store.apiKey };
    return fetch(`${store.url}/collections/${target}/snapshots/upload`, { method: 'POST', headers, body });
  };
  assert.equal((await upload(file, `${name}-copy`)).status, 200);
  assert.equal((await client.count(`${name}-copy`)).count, 20);
  const damaged = await upload(file.slice(0, file.size / 2), `${name}-broken`);
  assert.equal(damaged.status, 400);
  assert.deepEqual(await client.collectionExists(`${name}-broken`), { exists: false });
  for (const forbidden of ['file:///etc/passwd', `file://${store.folder}/data/snapshots/../../api-key`]) {
    await assert.rejects(client.recoverSnapshot(name, { location: forbidden }), status(404, /does not exist below/));
  }
  await assert.rejects(client.recoverSnapshot(name, { location: 'https://example.com/x' }), status(501, /upload it/));
  await store.kill();
  await store.start();
  assert.equal((await client.count(name)).count, 20);
  assert.equal(await client.deleteSnapshot(name, made.name), true);
  assert.deepEqual(await client.listSnapshots(name), []);
});

test('more requests at once than allowed get 429 and a time; a body over the limit 413', async () => {
  const small = await startVectorStore({ VECTOR_STORE_REQUESTS: '1', VECTOR_STORE_BODY_LIMIT: '2048' });
  try {
    const headers = { 'api-key': small.apiKey, 'content-type': 'application/json' };
    const put = (path: string, body: unknown) =>
      fetch(`${small.url}/collections/${path}`, { method: 'PUT', headers, body: JSON.stringify(body) });
    assert.equal((await put('a', { vectors: { size: 2, distance: 'Dot' } })).status, 200);
    const points = [{ id: 1, vector: [1, 2] }];
    const answers = await Promise.all(Array.from({ length: 20 }, () => put('a/points?wait=true', { points })));
    const refused = answers.filter((answer) => answer.status === 429);
    assert.ok(refused.length > 0 && refused.length < 20, `${refused.length} of 20 were refused`);
    assert.equal(refused[0]?.headers.get('retry-after'), '1');
    assert.equal((await put('a/points', { points, filler: 'x'.repeat(3000) })).status, 413);
    assert.equal(await small.end(), 0, 'SIGTERM ends it in order');
    assert.match(await small.log(), /"message": "stopped"/);
  } finally {
    await small.stop();
  }
});

test('metrics count answers and points', async () => {
  const name = await collection();
  const answer = await fetch(`${store.url}/metrics`, { headers: { 'api-key': store.readOnlyApiKey } });
  const text = await answer.text();
  assert.match(text, new RegExp(`collection_points\\{id="${name}"\\} 20\\.0`));
  assert.match(text, /rest_responses_total\{endpoint="\/collections\/\{collection\}",method="PUT",status="200"\}/);
  assert.equal((await fetch(`${store.url}/metrics`)).status, 401);
});
