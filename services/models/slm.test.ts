import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { builtModel, modelsOf, startModel, type TestModel } from '@somagent/orchestrator/testing/model.ts';
import { type ProviderConfig, parseModels } from './config.ts';
import { createProvider } from './models.ts';
import type { ChatChunk, ChatRequest, Models } from './types.ts';

const gguf = builtModel();
const ask: ChatRequest = {
  model: 'soma-tiny',
  messages: [{ role: 'user', content: 'What is a session?' }],
  max_tokens: 80,
};

describe('our own model server', { skip: gguf === undefined && 'there is no model' }, () => {
  let server: TestModel;
  let models: Models;

  before(async () => {
    server = await startModel(gguf ?? '');
    models = modelsOf(server);
  });
  after(async () => {
    await models?.close();
    await server?.stop();
  });

  async function all(request: ChatRequest): Promise<ChatChunk[]> {
    const chunks: ChatChunk[] = [];
    for await (const chunk of models.complete(request, { signal: new AbortController().signal })) chunks.push(chunk);
    return chunks;
  }

  for (const lane of ['interactive', 'batch'] as const) {
    it(`answers in the lane ${lane}, and tells how long the request waited in its queue`, async () => {
      const last = (await all({ ...ask, lane })).at(-1);
      assert.equal(last?.finish, 'stop');
      assert.ok(typeof last.timings?.queueMs === 'number');
    });
  }

  it('tells our own server whose request it is, and no other one', async () => {
    // The server knows what no tenant can be called: so it has been told.
    await assert.rejects(all({ ...ask, tenant: 'NO TENANT' }), /x-soma-tenant/);
    assert.equal((await all({ ...ask, tenant: 'acme' })).at(-1)?.finish, 'stop');
    const { url, caFile, apiKeyFile } = server;
    const prices = { 'soma-tiny': { prompt: 0, completion: 0 } };
    const stranger = createProvider('other', ['soma-tiny'], {
      ...parseModels({
        providers: { other: { kind: 'openai', url, caFile, credentialFile: apiKeyFile, prices } },
        models: {},
      }).providers.other,
    } as ProviderConfig);
    const chunks: ChatChunk[] = [];
    const { signal } = new AbortController();
    for await (const chunk of stranger.complete({ ...ask, tenant: 'NO TENANT' }, signal)) chunks.push(chunk);
    assert.equal(chunks.at(-1)?.finish, 'stop');
    await stranger.close();
  });

  it('calls a tool whose arguments keep to their schema', async () => {
    const parameters = {
      ...{ type: 'object', required: ['word'], additionalProperties: false },
      properties: { word: { type: 'string', enum: ['a', 'b'] } },
    };
    const tools = [{ type: 'function' as const, function: { name: 'look_up', description: 'Looks up', parameters } }];
    const chunks = await all({ ...ask, tools, tool_choice: 'required' });
    const pieces = chunks.flatMap(({ toolCalls = [] }) => toolCalls);
    assert.deepEqual([chunks.at(-1)?.finish, pieces[0]?.name], ['tool_calls', 'look_up']);
    const { word } = JSON.parse(pieces.map((piece) => piece.arguments ?? '').join(''));
    assert.ok(['a', 'b'].includes(word), word);
  });
});
