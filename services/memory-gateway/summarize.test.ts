import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { builtModel, startModel, type TestModel } from '@somagent/orchestrator/testing/model.ts';
import type { Memory } from './memories.ts';
import { Summarizer } from './summarize.ts';

const gguf = builtModel();

const memory: Memory = {
  id: '00000000-0000-8000-8000-000000000001',
  owner: 'ada',
  team: null,
  persona: null,
  sessionId: null,
  kind: 'episodic',
  text: 'A session has turns.',
  importance: 0.5,
  seen: 1,
  createdAt: '2026-01-01T00:00:00.000Z',
  expiresAt: null,
};

describe('a summary by our own model server', { skip: gguf === undefined && 'there is no model' }, () => {
  let server: TestModel;
  let summarizer: Summarizer;

  before(async () => {
    server = await startModel(gguf ?? '');
    const { url, apiKeyFile: tokenFile, caFile } = server;
    summarizer = new Summarizer({
      ...{ url, tokenFile, caFile, model: 'soma-tiny' },
      ...{ maxTokens: 40, maxCharacters: 2000 },
    });
  });
  after(() => server?.stop());

  it('is asked for in the name of the tenant', async () => {
    const { text, used } = await summarizer.summarize('acme', [memory]);
    assert.ok(text.length > 0);
    assert.equal(used, 1);
    // The server knows what no tenant can be called: so it has been told.
    await assert.rejects(summarizer.summarize('NO TENANT', [memory]), /x-soma-tenant/);
  });
});
