import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CoreV1Api } from '@kubernetes/client-node';
import { startApiServer, type TestApiServer } from '../bootstrap/testing/api-server.ts';
import { startEmbeddings, type TestEmbeddings } from './testing.ts';

let worker: TestEmbeddings;

before(async () => {
  worker = await startEmbeddings();
});
after(() => worker.stop());

interface Answer {
  readonly data: readonly { readonly index: number; readonly embedding: number[] | string }[];
  readonly usage: { readonly prompt_tokens: number };
  readonly soma: { readonly truncated: number[] };
}

function ask(body: unknown, server: TestEmbeddings = worker, token = server.token): Promise<Response> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  return fetch(`${server.url}/v1/embeddings`, { method: 'POST', headers, body: JSON.stringify(body) });
}

async function embed(input: string | string[], options: Record<string, unknown> = {}): Promise<Answer> {
  const answer = await ask({ model: worker.model, input, ...options });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()) as Answer;
}

const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, index) => sum + value * (b[index] ?? Number.NaN), 0);

test('sentences get the vectors that the page of the model promises, in their order', async () => {
  const { data, usage } = await embed(['That is a happy person', 'That is a happy dog', 'Today is a sunny day']);
  const [person = [], dog = [], day = []] = data.map(({ embedding }) => embedding as number[]);
  assert.deepEqual(
    data.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.equal(person.length, 384);
  assert.ok(Math.abs(dot(person, person) - 1) < 1e-5);
  assert.ok(Math.abs(dot(person, dog) - 0.695) < 0.001);
  assert.ok(Math.abs(dot(person, day) - 0.257) < 0.001);
  assert.equal(usage.prompt_tokens, 21);
});

test('base64 is the same numbers, as the official client asks for them', async () => {
  const [plain, packed] = await Promise.all([embed('hello'), embed('hello', { encoding_format: 'base64' })]);
  const bytes = Buffer.from(packed.data[0]?.embedding as string, 'base64');
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const expected = plain.data[0]?.embedding as number[];
  assert.equal(numbers.length, 384);
  assert.ok(numbers.every((value, index) => Math.abs(value - (expected[index] ?? 0)) < 1e-6));
});

test('what is cut off is said', async () => {
  const answer = await ask({ model: worker.model, input: ['short', 'word '.repeat(400)] });
  assert.equal(answer.headers.get('x-soma-truncated'), '1');
  assert.deepEqual(((await answer.json()) as Answer).soma.truncated, [1]);
});

test('wrong requests are refused with field, value and fix', async () => {
  const cases: [Record<string, unknown>, number, RegExp][] = [
    [{ model: 'gpt', input: 'a' }, 404, /model is 'gpt'; this worker serves 'all-minilm-l6-v2'/],
    [{ model: worker.model, input: '' }, 400, /input\[0\] is empty/],
    [{ model: worker.model, input: [1, 2] }, 400, /token ids are not taken/],
    [{ model: worker.model, input: [] }, 400, /input has 0 texts; allowed: 1 to 2048/],
    [{ model: worker.model, input: 'a', dimensions: 64 }, 400, /dimensions is 64; the model has 384/],
    [{ model: worker.model, input: 'a', voice: 'x' }, 400, /voice is not known/],
  ];
  for (const [body, status, message] of cases) {
    const answer = await ask(body);
    assert.equal(answer.status, status);
    assert.match(((await answer.json()) as { error: { message: string } }).error.message, message);
  }
});

test('without the token nothing is answered but health', async () => {
  for (const token of ['', 'wrong', `${worker.token}x`]) {
    assert.equal((await ask({ model: worker.model, input: 'a' }, worker, token)).status, 401);
  }
  assert.equal((await fetch(`${worker.url}/v1/models`)).status, 401);
  assert.equal((await fetch(`${worker.url}/healthz`)).status, 200);
});

test('models and metrics tell what there is and what was done', async () => {
  const headers = { authorization: `Bearer ${worker.token}` };
  const models = (await (await fetch(`${worker.url}/v1/models`, { headers })).json()) as { data: unknown[] };
  const { created, ...model } = models.data[0] as Record<string, unknown>;
  assert.equal(typeof created, 'number');
  assert.deepEqual(model, {
    ...{ id: 'all-minilm-l6-v2', object: 'model', owned_by: 'somagent', dimensions: 384, max_input_tokens: 256 },
  });
  await embed(['one', 'two']);
  const text = await (await fetch(`${worker.url}/metrics`, { headers })).text();
  assert.match(text, /embeddings_texts_total \d+/);
  assert.match(text, /embeddings_requests_total\{status="401"\} [34]\.0/);
});

test('a full queue answers 429 with the time to come again, and SIGTERM ends it in order', async () => {
  const small = await startEmbeddings({ EMBEDDINGS_QUEUE: '4' });
  try {
    const input = Array.from({ length: 4 }, () => 'word '.repeat(200));
    const answers = await Promise.all(Array.from({ length: 12 }, () => ask({ model: small.model, input }, small)));
    const refused = answers.filter(({ status }) => status === 429);
    assert.ok(refused.length > 0 && refused.length < 12, `${refused.length} of 12 were refused`);
    assert.ok(answers.every(({ status }) => status === 200 || status === 429));
    assert.ok(Number(refused[0]?.headers.get('retry-after')) >= 1);
    assert.equal(await small.end(), 0);
  } finally {
    await small.stop();
  }
});

test('in a cluster only listed workloads are answered', { timeout: 120_000 }, async () => {
  const cluster = await startApiServer();
  const folder = join(worker.folder, 'kubernetes');
  try {
    const tokens = await workloadTokens(cluster);
    await mkdir(folder);
    const authority = Buffer.from(cluster.admin.getCurrentCluster()?.caData ?? '', 'base64');
    await writeFile(join(folder, 'ca.crt'), authority);
    await writeFile(join(folder, 'token'), tokens.own);
    const pod = await startEmbeddings({
      EMBEDDINGS_API_KEY_FILE: '',
      EMBEDDINGS_WORKLOAD_AUDIENCE: 'somagent-embeddings',
      EMBEDDINGS_WORKLOAD_CALLERS: 'system:serviceaccount:services:memory-gateway',
      EMBEDDINGS_KUBERNETES_URL: cluster.admin.getCurrentCluster()?.server ?? '',
      EMBEDDINGS_KUBERNETES_DIR: folder,
    });
    try {
      const statuses: Record<string, number> = {};
      for (const [name, token] of Object.entries({ ...tokens, key: pod.token })) {
        statuses[name] = (await ask({ model: pod.model, input: 'a' }, pod, token)).status;
      }
      assert.deepEqual(statuses, { own: 401, good: 200, stranger: 401, elsewhere: 401, key: 401 });
    } finally {
      await pod.stop();
    }
  } finally {
    await cluster.stop();
  }
});

async function workloadTokens(cluster: TestApiServer) {
  const core = cluster.admin.makeApiClient(CoreV1Api);
  const namespace = 'services';
  await core.createNamespace({ body: { metadata: { name: namespace } } });
  const tokenOf = async (name: string, audiences: string[]): Promise<string> => {
    const spec = { audiences, expirationSeconds: 600 };
    const { status } = await core.createNamespacedServiceAccountToken({ name, namespace, body: { spec } });
    return status?.token ?? '';
  };
  for (const name of ['memory-gateway', 'stranger', 'embeddings']) {
    await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name } } });
  }
  return {
    own: await tokenOf('embeddings', []),
    good: await tokenOf('memory-gateway', ['somagent-embeddings']),
    stranger: await tokenOf('stranger', ['somagent-embeddings']),
    elsewhere: await tokenOf('memory-gateway', ['somagent-slm']),
  };
}
