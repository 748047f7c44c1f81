import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { createLogger } from '@somagent/kit';
import { builtModel } from '@somagent/orchestrator/testing/model.ts';
import { parseModels } from './config.ts';
import { createModels } from './models.ts';
import type { Front } from './testing/front.ts';
import { TestLlama } from './testing/llama.ts';
import type { Models } from './types.ts';

const gguf = builtModel();
const signal = new AbortController().signal;

describe("embeddings of llama.cpp's own server", { skip: gguf === undefined && 'there is no model' }, () => {
  let llama: TestLlama;
  let fronts: Front[];
  let models: Models;

  before(async () => {
    llama = await TestLlama.start(gguf ?? '', 'embedding');
    fronts = [await llama.front(), await llama.front()];
    const { caFile, credentialFile } = llama;
    const providers = Object.fromEntries(
      fronts.map(({ url }, index) => {
        const prices = { t: { prompt: 1_000_000 } };
        return [`p${index}`, { kind: 'openai', url: `${url}/v1`, caFile, credentialFile, prices }];
      }),
    );
    const chain = [
      { provider: 'p0', model: 't' },
      { provider: 'p1', model: 't' },
    ];
    const log = createLogger({ service: 'models', level: 'silent' });
    models = createModels(parseModels({ providers, models: { e: { kind: 'embedding', chain } } }), { log });
  });
  after(async () => {
    await models?.close();
    await llama?.stop();
  });

  it('a vector for each text, in their order, counted and priced', async () => {
    const input = ['What is a session?', 'What is a region?', 'What is a session?'];
    const { vectors, usage, provider, costMicros, reasons } = await models.embed({ model: 'e', input }, { signal });
    const [first, second, third] = vectors;
    assert.equal(vectors.length, 3);
    assert.ok((first?.length ?? 0) >= 64);
    assert.deepEqual(
      first?.map((value) => value.toFixed(4)),
      third?.map((value) => value.toFixed(4)),
    );
    assert.notDeepEqual(first, second);
    assert.ok(usage.promptTokens > 0);
    assert.deepEqual([provider, costMicros, reasons], ['p0', usage.promptTokens, []]);
    assert.ok(models.estimate({ model: 'e', input }).costMicros >= usage.promptTokens);
  });

  it('another server answers when the first is away, and why is told', async () => {
    await fronts[0]?.fail({ kind: 'refuse' });
    const { vectors, provider, reasons } = await models.embed({ model: 'e', input: ['a'] }, { signal });
    assert.deepEqual([vectors.length, provider, reasons], [1, 'p1', ['p0/t: unavailable']]);
  });

  it('a chat model is none, and the other way round', async () => {
    await assert.rejects(models.embed({ model: 'm', input: ['a'] }, { signal }), { code: 'unknown_model' });
    assert.throws(() => models.complete({ model: 'e', messages: [] }, { signal }), { code: 'unknown_model' });
  });
});
