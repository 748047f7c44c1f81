import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { builtModel, modelsOf, startModel, type TestModel } from '@somagent/orchestrator/testing/model.ts';
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
