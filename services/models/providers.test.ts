import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { builtModel } from '@somagent/orchestrator/testing/model.ts';
import { parseModels } from './config.ts';
import { ModelError } from './errors.ts';
import { createProvider } from './models.ts';
import type { Front } from './testing/front.ts';
import { TestLlama } from './testing/llama.ts';
import type { ChatChunk, ChatRequest, Provider } from './types.ts';

const gguf = builtModel();
const question: ChatRequest = {
  model: 'soma-tiny',
  messages: [{ role: 'user', content: 'What is a session?' }],
  max_tokens: 60,
  temperature: 0,
};
const never = new AbortController().signal;

async function all(chunks: AsyncIterable<ChatChunk>): Promise<ChatChunk[]> {
  const list: ChatChunk[] = [];
  for await (const chunk of chunks) list.push(chunk);
  return list;
}

const textOf = (chunks: readonly ChatChunk[]) => chunks.map(({ text }) => text).join('');

async function failureOf(run: () => Promise<unknown>): Promise<ModelError> {
  const error = await run().then(
    () => assert.fail('it answered'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ModelError, String(error));
  return error;
}

describe("providers against llama.cpp's own server", { skip: gguf === undefined && 'there is no model' }, () => {
  let llama: TestLlama;
  let front: Front;
  const made: Provider[] = [];

  before(async () => {
    llama = await TestLlama.start(gguf ?? '');
    front = await llama.front();
  });
  after(async () => {
    await Promise.all(made.map((provider) => provider.close()));
    await llama?.stop();
  });

  function provider(
    kind: 'openai' | 'anthropic',
    credentialFile = llama.credentialFile,
    caFile: string | undefined = llama.caFile,
  ): Provider {
    const url = kind === 'openai' ? `${front.url}/v1` : front.url;
    const prices = { 'soma-tiny': { prompt: 1, completion: 1 } };
    const config = { kind, url, credentialFile, ...(caFile === undefined ? {} : { caFile }), prices };
    const { providers } = parseModels({
      providers: { p: config },
      models: { m: { chain: [{ provider: 'p', model: 'soma-tiny' }] } },
    });
    assert.ok(providers.p !== undefined);
    const created = createProvider('p', ['soma-tiny'], providers.p);
    made.push(created);
    return created;
  }

  for (const kind of ['openai', 'anthropic'] as const) {
    describe(kind, () => {
      it('streams the answer in pieces, and tells tokens, times and its end', async () => {
        const chunks = await all(provider(kind).complete(question, never));
        assert.match(textOf(chunks), /^A session is a conversation between a caller and an agent\./);
        const pieces = chunks.filter(({ text }) => text !== '');
        assert.ok(pieces.length > 10, `${pieces.length} pieces`);
        const last = chunks.at(-1);
        assert.equal(last?.finish, 'stop');
        assert.equal(last?.usage?.promptTokens, 17, 'the tokens that the tokenizer of this model makes of it');
        assert.equal(last?.usage?.completionTokens, pieces.length + 1, 'every piece, and the end');
        const { firstTokenMs, totalMs } = last?.timings ?? {};
        assert.ok(typeof firstTokenMs === 'number' && firstTokenMs > 0 && firstTokenMs <= (totalMs ?? 0));
      });

      it('says when an answer was cut by its limit', async () => {
        const chunks = await all(provider(kind).complete({ ...question, max_tokens: 5 }, never));
        assert.deepEqual([chunks.at(-1)?.finish, chunks.at(-1)?.usage?.completionTokens], ['length', 5]);
      });

      it('stops before a word that shall end it', async () => {
        const chunks = await all(provider(kind).complete({ ...question, stop: ['caller'] }, never));
        assert.equal(textOf(chunks).trimEnd(), 'A session is a conversation between a');
      });

      it('gives the model its instructions and the turns before', async () => {
        const messages = [
          { role: 'system' as const, content: 'Be brief.' },
          { role: 'user' as const, content: 'What is a turn?' },
          { role: 'assistant' as const, content: 'One prompt.' },
          ...question.messages,
        ];
        const chunks = await all(provider(kind).complete({ ...question, messages, max_tokens: 1 }, never));
        assert.ok((chunks.at(-1)?.usage?.promptTokens ?? 0) > 17 + 10);
      });

      it('tells a conversation that is too long from other refusals', async () => {
        const messages = [{ role: 'user' as const, content: 'session '.repeat(2000) }];
        const error = await failureOf(() => all(provider(kind).complete({ ...question, messages }, never)));
        assert.deepEqual([error.code, error.status, error.permanent], ['context_length_exceeded', 400, true]);
      });

      it('shows its key, and says when it is refused; a rotated key needs no restart', async () => {
        const refused = provider(kind, llama.wrongCredentialFile);
        const error = await failureOf(() => all(refused.complete(question, never)));
        assert.deepEqual([error.code, error.status], ['unauthorized', 401]);
        assert.doesNotMatch(`${error.message} ${JSON.stringify(error)}`, /another key/);
        await writeFile(llama.wrongCredentialFile, 'a key of this test');
        assert.match(textOf(await all(refused.complete(question, never))), /^A session/);
        await writeFile(llama.wrongCredentialFile, 'another key');
      });

      it('trusts no other authority', async () => {
        const error = await failureOf(() =>
          all(provider(kind, llama.credentialFile, '/etc/hostname').complete(question, never)),
        );
        assert.equal(error.code, 'unavailable');
      });

      it('keeps its connection from answer to answer', async () => {
        const one = provider(kind);
        await all(one.complete(question, never));
        const { connections } = front;
        for (let answer = 0; answer < 5; answer += 1) await all(one.complete(question, never));
        // One more when a request begins before the last bytes of the answer before are read.
        assert.ok(front.connections <= connections + 1, `${front.connections - connections} more connections`);
      });

      it('lets the server go when its caller aborts, or leaves', async () => {
        await front.fail({ kind: 'stall', afterBytes: 1500 });
        const stop = new AbortController();
        const { left } = front;
        let pieces = 0;
        const aborted = all(
          (async function* () {
            for await (const chunk of provider(kind).complete(question, stop.signal)) {
              pieces += 1;
              if (chunk.text !== '') stop.abort(new Error('enough'));
              yield chunk;
            }
          })(),
        );
        await assert.rejects(aborted, { message: 'enough' });
        assert.ok(pieces > 0);
        for await (const { text } of provider(kind).complete(question, never)) if (text !== '') break;
        while (front.left < left + 2) await new Promise((resolve) => setTimeout(resolve, 5));
        assert.equal(front.open, 0);
        await front.fail({ kind: 'none' });
      });

      it('takes an answer that is cut off for a failure, not for its end', async () => {
        await front.fail({ kind: 'reset', afterBytes: 1500 });
        const error = await failureOf(() => all(provider(kind).complete(question, never)));
        assert.equal(error.code, 'unavailable');
        await front.fail({ kind: 'none' });
      });
    });
  }

  it('openai: constrains the answer to a JSON schema', async () => {
    const schema = {
      type: 'object',
      properties: { ok: { type: 'boolean' } },
      required: ['ok'],
      additionalProperties: false,
    };
    const response_format = { type: 'json_schema' as const, json_schema: { name: 'answer', schema } };
    const chunks = await all(provider('openai').complete({ ...question, max_tokens: 200, response_format }, never));
    const answer = JSON.parse(textOf(chunks));
    assert.deepEqual(Object.keys(answer), ['ok']);
    assert.equal(typeof answer.ok, 'boolean');
  });
});
