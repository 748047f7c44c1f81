import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger } from '@somagent/kit';
import { builtModel } from '@somagent/orchestrator/testing/model.ts';
import fc from 'fast-check';
import { parseModels } from './config.ts';
import { ModelError } from './errors.ts';
import { createModels } from './models.ts';
import type { Fault, Front } from './testing/front.ts';
import { TestLlama } from './testing/llama.ts';
import type { CallOptions, ChatChunk, ChatRequest, Models, Spent } from './types.ts';

const gguf = builtModel();
const log = createLogger({ service: 'models', level: 'silent' });
const ask: ChatRequest = {
  model: 'm',
  messages: [{ role: 'user', content: 'What is a session?' }],
  max_tokens: 60,
  temperature: 0,
};
const tokens = { prompt: 17, answer: 49 };
const price = { prompt: 1_000_000, completion: 2_000_000 };
/** Whole micros: prices are one and two micros per token. */
const cost = tokens.prompt + 2 * tokens.answer;

/** What came of a call. */
interface Result {
  readonly text: string;
  readonly last: ChatChunk | undefined;
  readonly error: unknown;
  readonly spent: Spent | undefined;
  readonly elapsed: number;
}

describe('chains over real connections', { skip: gguf === undefined && 'there is no model' }, () => {
  let llama: TestLlama;
  let fronts: Front[];
  let whole: string;
  const made: Models[] = [];

  before(async () => {
    llama = await TestLlama.start(gguf ?? '');
    fronts = [await llama.front(), await llama.front(), await llama.front()];
    const { text } = await call(chain(1));
    whole = text;
    assert.match(whole, /^A session is a conversation/);
  });
  afterEach(async () => {
    for (const front of fronts) await front.fail({ kind: 'none' });
    await Promise.all(made.splice(0).map((models) => models.close()));
  });
  after(() => llama?.stop());

  interface Setup {
    readonly model?: object;
    readonly timeouts?: object;
    readonly breaker?: object;
    /** Kind of each provider. @default openai and anthropic by turns */
    readonly kind?: 'openai' | 'anthropic';
  }

  /** Models `m` with that many providers, one front each. */
  function chain(length: number, { model = {}, timeouts = {}, breaker = {}, kind }: Setup = {}): Models {
    const used = fronts.slice(0, length);
    const providers = Object.fromEntries(
      used.map((front, index) => {
        const own = kind ?? (index % 2 === 0 ? 'openai' : 'anthropic');
        const url = own === 'openai' ? `${front.url}/v1` : front.url;
        const { caFile, credentialFile } = llama;
        const limits = { firstTokenMs: 5000, idleMs: 5000, ...timeouts };
        return [
          `p${index}`,
          { kind: own, url, caFile, credentialFile, prices: { t: price }, timeouts: limits, breaker },
        ];
      }),
    );
    const links = used.map((_, index) => ({ provider: `p${index}`, model: 't' }));
    const models = createModels(parseModels({ providers, models: { m: { chain: links, ...model } } }), { log });
    made.push(models);
    return models;
  }

  async function call(models: Models, options: Partial<CallOptions> = {}, request = ask): Promise<Result> {
    const began = performance.now();
    let text = '';
    let last: ChatChunk | undefined;
    let spent: Spent | undefined;
    let error: unknown;
    const signal = new AbortController().signal;
    const onSpent = (told: Spent) => {
      assert.equal(spent, undefined, 'told once');
      spent = told;
    };
    try {
      for await (const chunk of models.complete(request, { signal, onSpent, ...options })) {
        text += chunk.text;
        last = chunk;
      }
    } catch (thrown) {
      error = thrown;
    }
    return { text, last, error, spent, elapsed: performance.now() - began };
  }

  const codeOf = ({ error }: Result) => (error instanceof ModelError ? error.code : error);

  /** No request of a call outlives it. */
  async function nothingLeft(): Promise<void> {
    const end = performance.now() + 2000;
    while (fronts.some(({ open }) => open > 0) && performance.now() < end) await sleep(5);
    assert.deepEqual(
      fronts.map(({ open }) => open),
      [0, 0, 0],
    );
  }

  const served = () => fronts.map(({ requests }) => requests.length);

  async function requestsDuring(run: () => Promise<unknown>): Promise<number[]> {
    const earlier = served();
    await run();
    return served().map((count, index) => count - (earlier[index] ?? 0));
  }

  it('the first provider answers: no reasons, its cost to the micro', async () => {
    const { text, last, spent } = await call(chain(2));
    assert.equal(text, whole);
    assert.deepEqual([last?.finish, last?.provider, last?.reasons, last?.costMicros], ['stop', 'p0', [], cost]);
    assert.deepEqual(spent, {
      usage: { promptTokens: tokens.prompt, completionTokens: tokens.answer },
      costMicros: cost,
      reasons: [],
      provider: 'p0',
      model: 't',
    });
  });

  const beginnings: readonly (readonly [Fault, string])[] = [
    [{ kind: 'refuse' }, 'p0/t: unavailable'],
    [{ kind: 'hang' }, 'p0/t: timeout'],
    [{ kind: 'reset', afterBytes: 0 }, 'p0/t: unavailable'],
    [{ kind: 'status', status: 500 }, 'p0/t: overloaded (500)'],
    [{ kind: 'status', status: 529 }, 'p0/t: overloaded (529)'],
    [{ kind: 'status', status: 429, headers: { 'retry-after': '1' } }, 'p0/t: rate_limited (429)'],
    [{ kind: 'status', status: 401 }, 'p0/t: unauthorized (401)'],
    [{ kind: 'status', status: 404 }, 'p0/t: model_not_found (404)'],
  ];
  for (const [fault, reason] of beginnings) {
    it(`${JSON.stringify(fault)}: the second answers, and the reason is told`, async () => {
      await fronts[0]?.fail(fault);
      const { text, last } = await call(chain(2, { timeouts: { firstTokenMs: 700 } }));
      assert.equal(text, whole);
      assert.deepEqual([last?.provider, last?.reasons], ['p1', [reason]]);
      // Whoever hangs may have read the prompt, and wants its money.
      assert.equal(last?.costMicros, fault.kind === 'hang' ? cost + tokens.prompt : cost);
      await nothingLeft();
    });
  }

  it('a request that is wrong is wrong everywhere: nobody else is asked', async () => {
    await fronts[0]?.fail({ kind: 'status', status: 400 });
    const models = chain(2);
    const asked = await requestsDuring(async () => assert.equal(codeOf(await call(models)), 'invalid_request'));
    assert.deepEqual(asked, [1, 0, 0]);
  });

  it('an answer that has begun is never asked for again', async () => {
    for (const kind of ['reset', 'stall'] as const) {
      await fronts[0]?.fail({ kind, afterBytes: 1500 });
      const models = chain(2, { timeouts: { idleMs: 200 } });
      const asked = await requestsDuring(async () => {
        const result = await call(models);
        assert.equal(codeOf(result), 'broken_off', kind);
        assert.ok(result.text.length > 0 && whole.startsWith(result.text), result.text);
        const { costMicros = 0, provider, reasons } = result.spent ?? {};
        assert.ok(costMicros > 0 && costMicros <= cost + 1000, `${costMicros}`);
        assert.deepEqual([provider, reasons], ['p0', ['p0/t: broken_off']]);
      });
      assert.deepEqual(asked, [1, 0, 0]);
      await nothingLeft();
    }
  });

  it('a provider that asks for a pause gets it, and is asked again after it', async () => {
    const models = chain(1);
    await fronts[0]?.fail({ kind: 'status', status: 429, headers: { 'retry-after': '0.4' } });
    const { requests } = fronts[0] as Front;
    const earlier = requests.length;
    const answer = call(models);
    while (requests.length === earlier) await sleep(5);
    await fronts[0]?.fail({ kind: 'none' });
    const { text, elapsed, last } = await answer;
    assert.equal(text, whole);
    assert.ok(elapsed >= 400, `${elapsed} ms`);
    assert.deepEqual(last?.reasons, ['p0/t: rate_limited (429)']);
  });

  it('the time is for the whole chain, whatever hangs in it', async () => {
    for (const front of fronts) await front.fail({ kind: 'hang' });
    const result = await call(chain(3, { timeouts: { firstTokenMs: 150 }, model: { attempts: 16 } }), {
      deadlineMs: 500,
    });
    assert.ok(result.elapsed < 1500, `${result.elapsed} ms`);
    assert.ok(['deadline_exceeded', 'exhausted'].includes(String(codeOf(result))), String(codeOf(result)));
    await nothingLeft();
  });

  it('attempts are limited, and all reasons are in the error', async () => {
    for (const front of fronts) await front.fail({ kind: 'status', status: 503 });
    const models = chain(3);
    const asked = await requestsDuring(async () => {
      const { error } = await call(models, { budget: { attempts: 4 } });
      assert.ok(error instanceof ModelError);
      assert.deepEqual([error.code, error.reasons.length], ['exhausted', 4]);
    });
    assert.deepEqual([asked.reduce((sum, count) => sum + count, 0), Math.min(...asked)], [4, 1]);
  });

  it('an attempt that may cost more than is left is not begun', async () => {
    const models = chain(2);
    const { costMicros, tokens: most } = models.estimate(ask);
    assert.ok(most >= tokens.prompt + 60 && costMicros >= cost);
    const asked = await requestsDuring(async () => {
      assert.equal(codeOf(await call(models, { budget: { costMicros: 100 } })), 'budget_exceeded');
    });
    assert.deepEqual(asked, [0, 0, 0]);
  });

  it('a caller that goes is not kept: its own reason, and the connection is let go', async () => {
    await fronts[0]?.fail({ kind: 'hang' });
    const stop = new AbortController();
    const answer = call(chain(2), { signal: stop.signal });
    await sleep(100);
    stop.abort(new Error('gone'));
    const { error, elapsed, spent } = await answer;
    assert.deepEqual([(error as Error).message, spent?.provider], ['gone', null]);
    assert.ok(elapsed < 600);
    await nothingLeft();
  });

  it('whatever fails in whatever order: the whole answer once, or a beginning of it and an error', async () => {
    const fault: fc.Arbitrary<Fault> = fc.oneof(
      { weight: 3, arbitrary: fc.constant<Fault>({ kind: 'none' }) },
      fc.constantFrom<Fault>(
        { kind: 'refuse' },
        { kind: 'hang' },
        { kind: 'slow', ms: 100 },
        { kind: 'status', status: 500 },
        { kind: 'status', status: 429, headers: { 'retry-after': '0.1' } },
        { kind: 'status', status: 401 },
      ),
      fc.nat(4000).map((afterBytes): Fault => ({ kind: 'reset', afterBytes })),
    );
    const faults = fc.array(fault, { minLength: 3, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(faults, fc.integer({ min: 1, max: 5 }), fc.boolean(), async (chosen, attempts, hedged) => {
        const hedge = hedged ? { hedge: { share: 0.5, minimumSamples: 5 } } : {};
        const models = chain(3, { timeouts: { firstTokenMs: 800 }, model: { attempts, ...hedge } });
        for (const [index, one] of chosen.entries()) await fronts[index]?.fail(one);
        const earlier = served().reduce((sum, count) => sum + count, 0);
        const result = await call(models, { deadlineMs: 10_000 });
        const asked = served().reduce((sum, count) => sum + count, 0) - earlier;
        await nothingLeft();
        assert.ok(asked <= attempts, `${asked} requests of ${attempts}`);
        assert.ok(result.elapsed < 11_000, `${result.elapsed} ms`);
        assert.ok(result.spent !== undefined && result.spent.costMicros <= models.estimate(ask).costMicros);
        if (result.error === undefined) assert.equal(result.text, whole);
        else assert.ok(codeOf(result) !== undefined && whole.startsWith(result.text), String(result.error));
        const first = chosen.findIndex(({ kind }) => kind === 'none' || kind === 'slow');
        const cut = chosen.slice(0, Math.max(0, first)).some(({ kind }) => kind === 'reset');
        if (first >= 0 && first < attempts && !cut) assert.equal(result.text, whole, String(result.error));
        if (first === 0) assert.deepEqual(result.last?.reasons, []);
        await Promise.all(made.splice(0).map((one) => one.close()));
      }),
      { numRuns: 20 },
    );
  });

  describe('circuit breaker', () => {
    const breaker = { minimumRequests: 3, window: 6, halfOpenMs: 300, maxHalfOpenMs: 300 };

    it('opens after failures: the provider is left alone, and said to be', async () => {
      const models = chain(2, { breaker: { ...breaker, halfOpenMs: 60_000, maxHalfOpenMs: 60_000 } });
      await fronts[0]?.fail({ kind: 'status', status: 503 });
      const asked = await requestsDuring(async () => {
        for (let turn = 0; turn < 12; turn += 1) {
          const { last } = await call(models);
          assert.equal(last?.provider, 'p1');
          assert.deepEqual(last?.reasons, [turn < 3 ? 'p0/t: overloaded (503)' : 'p0/t: circuit_open']);
        }
      });
      assert.deepEqual(asked, [3, 12, 0]);
    });

    it('one request of many probes; with its success the circuit closes', async () => {
      const models = chain(2, { breaker, timeouts: { firstTokenMs: 20_000 } });
      await fronts[0]?.fail({ kind: 'status', status: 503 });
      for (let turn = 0; turn < 3; turn += 1) await call(models);
      await fronts[0]?.fail({ kind: 'slow', ms: 300 });
      await sleep(320);
      const results: Result[] = [];
      const asked = await requestsDuring(async () => {
        results.push(...(await Promise.all(Array.from({ length: 12 }, () => call(models)))));
      });
      assert.deepEqual(asked, [1, 11, 0]);
      assert.ok(results.every(({ text }) => text === whole));
      await fronts[0]?.fail({ kind: 'none' });
      assert.equal((await call(models)).last?.provider, 'p0');
    });

    it('a probe that fails, or is given up, leaves it open', async () => {
      const models = chain(2, { breaker });
      await fronts[0]?.fail({ kind: 'status', status: 503 });
      for (let turn = 0; turn < 3; turn += 1) await call(models);
      await sleep(320);
      await call(models);
      assert.deepEqual(await requestsDuring(() => call(models)), [0, 1, 0]);
      await fronts[0]?.fail({ kind: 'hang' });
      await sleep(320);
      const stop = new AbortController();
      const probe = call(models, { signal: stop.signal });
      await sleep(60);
      stop.abort(new Error('gone'));
      await probe;
      assert.deepEqual(await requestsDuring(() => call(models)), [0, 1, 0]);
    });

    it('refusals of requests say nothing about the provider', async () => {
      const models = chain(1, { breaker });
      const tooLong = { ...ask, messages: [{ role: 'user' as const, content: 'session '.repeat(2000) }] };
      for (let turn = 0; turn < 6; turn += 1) {
        assert.equal(codeOf(await call(models, {}, tooLong)), 'context_length_exceeded');
      }
      assert.equal((await call(models)).text, whole);
    });

    it('with one provider, a request waits for it to come back', async () => {
      const models = chain(1, { breaker, model: { attempts: 16 } });
      await fronts[0]?.fail({ kind: 'refuse' });
      const waiting = Array.from({ length: 4 }, () => call(models));
      await sleep(900);
      await fronts[0]?.fail({ kind: 'none' });
      for (const { text, error } of await Promise.all(waiting)) assert.equal(text, whole, String(error));
    });
  });

  describe('hedging', () => {
    const hedge = { share: 0.25, minimumSamples: 5, minimumMs: 30 };

    async function warm(models: Models): Promise<void> {
      for (let turn = 0; turn < 6; turn += 1) await call(models);
    }

    it('a slow first token: another is asked, the loser is cancelled, and its prompt is paid', async () => {
      const models = chain(2, { model: { hedge }, timeouts: { firstTokenMs: 5000 } });
      await warm(models);
      await fronts[0]?.fail({ kind: 'slow', ms: 3000 });
      const { left } = fronts[0] as Front;
      const { text, last, elapsed } = await call(models);
      assert.equal(text, whole);
      assert.equal(last?.provider, 'p1');
      assert.match(String(last?.reasons), /^p0\/t: hedged after \d+ ms$/);
      assert.ok(elapsed < 2500, `${elapsed} ms`);
      assert.equal(last?.costMicros, cost + tokens.prompt);
      await nothingLeft();
      assert.equal(fronts[0]?.left, left + 1);
    });

    it('a slow rest of an answer is no reason: only the first token counts', async () => {
      const models = chain(2, { model: { hedge }, timeouts: { idleMs: 300 } });
      await warm(models);
      await fronts[0]?.fail({ kind: 'stall', afterBytes: 1500 });
      const asked = await requestsDuring(async () => assert.equal(codeOf(await call(models)), 'broken_off'));
      assert.deepEqual(asked, [1, 0, 0]);
    });

    it('only a share of the requests is hedged, however slow all are', async () => {
      const models = chain(2, { model: { hedge: { ...hedge, share: 0.1 } }, timeouts: { firstTokenMs: 5000 } });
      await warm(models);
      await fronts[0]?.fail({ kind: 'slow', ms: 250 });
      const asked = await requestsDuring(async () => {
        for (let wave = 0; wave < 4; wave += 1) {
          const results = await Promise.all(Array.from({ length: 5 }, () => call(models)));
          for (const { text } of results) assert.equal(text, whole);
        }
      });
      assert.equal(asked[0], 20);
      assert.ok((asked[1] ?? 0) >= 1 && (asked[1] ?? 0) <= 2 + 0.1 * 26, `${asked[1]} hedges`);
      await nothingLeft();
    });

    it('when both fail, the next of the chain is asked', async () => {
      const models = chain(3, { model: { hedge }, timeouts: { firstTokenMs: 800 } });
      await warm(models);
      await fronts[0]?.fail({ kind: 'hang' });
      await fronts[1]?.fail({ kind: 'hang' });
      const { text, last } = await call(models);
      assert.equal(text, whole);
      assert.deepEqual([last?.provider, last?.reasons], ['p2', ['p0/t: timeout', 'p1/t: timeout']]);
      assert.equal(last?.costMicros, cost + 2 * tokens.prompt);
      await nothingLeft();
    });
  });

  it('an unknown model is named with those that there are', async () => {
    const models = chain(1);
    assert.throws(() => models.complete({ ...ask, model: 'gpt-9' }, { signal: new AbortController().signal }), {
      code: 'unknown_model',
      message: 'there is no chat model "gpt-9": use one of: m',
    });
  });

  it('no timer is left behind', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const models = chain(2, { model: { hedge: { share: 0.5 } } });
    await call(models);
    const earlier = timers();
    for (let turn = 0; turn < 10; turn += 1) await call(models);
    assert.ok(timers() <= earlier, `${timers()} timers, ${earlier} before`);
  });
});
