/** OpenAI's API at the gateway, asked by the official client, with real servers behind it. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { recallChannel } from '@somagent/budget';
import { hasOpenFga } from '@somagent/relations/testing/openfga.ts';
import OpenAI from 'openai';
import { attacks } from './testing/openai-attacks.ts';
import { agentSession, OpenAiWorld, prices } from './testing/openai-world.ts';

const messages = [{ role: 'user' as const, content: 'What is a session?' }];
const ask = { model: 'soma-tiny', messages, max_tokens: 12, temperature: 0, seed: 7 };
const refused = async (call: Promise<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> => {
  const error = await call.then(
    () => assert.fail('it was answered'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof OpenAI.APIError, String(error));
  return error;
};
const toEnd = async (chunks: AsyncIterable<unknown>): Promise<void> => {
  for await (const _ of chunks);
};
const tool = (name: string) => ({
  type: 'function' as const,
  function: {
    name,
    description: 'of this test',
    parameters: { type: 'object', properties: { q: { type: 'string' } } },
  },
});

describe("OpenAI's API at the gateway", { skip: !hasOpenFga() && 'OpenFGA is not built', timeout: 120_000 }, () => {
  let world: OpenAiWorld;
  before(async () => {
    world = await OpenAiWorld.start();
  });
  after(() => world?.stop());
  afterEach(async () => {
    world.limit = null;
    await world.front.fail({ kind: 'none' });
    await world.clearBudgets();
  });

  it('answers whole, and its use is told once with what it cost', async () => {
    const client = await world.clientOf('agent');
    const { data, request_id } = await client.chat.completions.create(ask).withResponse();
    assert.equal(data.object, 'chat.completion');
    assert.equal(data.model, 'soma-tiny');
    const [choice] = data.choices;
    assert.ok(choice && (choice.message.content ?? '').length > 0);
    assert.ok(['stop', 'length'].includes(choice.finish_reason));
    assert.ok(data.usage && data.usage.completion_tokens > 0 && data.usage.completion_tokens <= 12);
    const told = await world.told(request_id);
    assert.equal(told.length, 1);
    const { model, total, platform, queue: _queue, firstToken, ...counted } = told[0]?.data ?? {};
    assert.deepEqual(counted, {
      sessionId: null,
      turnId: null,
      subject: 'mary',
      persona: 'acme-agent',
      team: 'blue',
      modelName: 'soma-tiny',
      lane: 'interactive',
      outcome: 'completed',
      promptTokens: data.usage.prompt_tokens,
      completionTokens: data.usage.completion_tokens,
      costMicros:
        data.usage.prompt_tokens * (prices.prompt / 1e6) + data.usage.completion_tokens * (prices.completion / 1e6),
      provider: 'llama',
      reasons: [],
    });
    assert.ok(Number(total) >= Number(model) && Number(platform) >= 0 && Number(firstToken) > 0);
    const verdicts = world.verdicts.filter((verdict) => verdict.requestId === request_id);
    assert.deepEqual(
      verdicts.map(({ route, rule, capability }) => [route, rule, capability]),
      [['createChatCompletion', 'soma.gateway.allow_by_role', 'model:chat']],
    );
  });

  it('streams the same answer in pieces, with its use at the end', async () => {
    const client = await world.clientOf('agent');
    const whole = await client.chat.completions.create(ask);
    const { data, request_id } = await client.chat.completions
      .create({ ...ask, stream: true, stream_options: { include_usage: true } })
      .withResponse();
    let text = '';
    let pieces = 0;
    let usage: OpenAI.CompletionUsage | null | undefined;
    let finish: string | null | undefined;
    for await (const chunk of data) {
      text += chunk.choices[0]?.delta.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      pieces += 1;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0]?.message.content);
    assert.equal(finish, whole.choices[0]?.finish_reason);
    assert.ok(pieces > 3);
    assert.deepEqual(
      [usage?.prompt_tokens, usage?.completion_tokens, usage?.total_tokens],
      [whole.usage?.prompt_tokens, whole.usage?.completion_tokens, whole.usage?.total_tokens],
    );
    assert.equal((await world.told(request_id))[0]?.data.outcome, 'completed');
  });

  it('keeps answers to a JSON schema', async () => {
    const client = await world.clientOf('agent');
    const schema = { enum: ['governed', 'free'] };
    const { choices } = await client.chat.completions.create({
      ...ask,
      max_tokens: 40,
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } },
    });
    const text = choices[0]?.message.content?.trim() ?? '';
    assert.ok(['"governed"', '"free"'].includes(text), text);
  });

  it('embeds texts as floats and as base64, and tells the use of it', async () => {
    const client = await world.clientOf('agent');
    const input = ['A session belongs to its tenant.', 'Sessions are owned by tenants.', 'Bread is baked in an oven.'];
    const { data, request_id } = await client.embeddings
      .create({ model: 'soma-embed', input, encoding_format: 'float' })
      .withResponse();
    const vectors = data.data.map(({ embedding }) => embedding);
    assert.deepEqual(
      [data.data.map(({ index }) => index), vectors.map(({ length }) => length)],
      [
        [0, 1, 2],
        [384, 384, 384],
      ],
    );
    const alike = (a = 0, b = 0) =>
      (vectors[a] ?? []).reduce((sum, value, at) => sum + value * (vectors[b]?.[at] ?? 0), 0);
    assert.ok(alike(0, 1) > alike(0, 2) + 0.2, `${alike(0, 1)} ${alike(0, 2)}`);
    assert.ok(Math.abs(alike(0, 0) - 1) < 1e-3);
    // What the client asks for by itself.
    const packed = await client.embeddings.create({ model: 'soma-embed', input });
    for (const [index, value] of (packed.data[1]?.embedding ?? []).entries()) {
      assert.ok(Math.abs(value - (vectors[1]?.[index] ?? 9)) < 1e-6);
    }
    const [told] = await world.told(request_id);
    assert.deepEqual(
      [
        told?.data.outcome,
        told?.data.provider,
        told?.data.promptTokens,
        told?.data.costMicros,
        told?.data.completionTokens,
      ],
      ['completed', 'vectors', data.usage.prompt_tokens, data.usage.prompt_tokens, 0],
    );
    await world.putBudget({ tokens: 10 });
    const error = await refused(client.embeddings.create({ model: 'soma-embed', input }));
    assert.deepEqual([error.status, error.code], [429, 'insufficient_quota']);
    await world.clearBudgets();
  });

  it('works with an API key within its scopes', async () => {
    const { secret } = await world.operate('/v1/tenants/acme/api-keys', {
      ...{ owner: 'mary', name: 'an agent', scopes: ['model:chat', 'model:read'] },
    });
    const client = world.client(String(secret));
    const { choices } = await client.chat.completions.create(ask);
    assert.ok(choices[0]?.message.content);
    const error = await refused(client.embeddings.create({ model: 'soma-embed', input: 'a' }));
    assert.deepEqual([error.status, error.code, error.type], [403, 'forbidden', 'permission_error']);
    assert.match(error.message, /scopes lack model:embed/);
  });

  it('lists its models and shows one', async () => {
    const client = await world.clientOf('auditor');
    const models: OpenAI.Model[] = [];
    for await (const model of client.models.list()) models.push(model);
    assert.deepEqual(
      models.map(({ id, owned_by }) => [id, owned_by]),
      [
        ['soma-tiny', 'llama'],
        ['soma-own', 'own'],
        ['soma-embed', 'vectors'],
      ],
    );
    assert.equal((await client.models.retrieve('soma-tiny')).id, 'soma-tiny');
    const error = await refused(client.models.retrieve('gpt-9'));
    assert.deepEqual([error.status, error.code, error.param], [404, 'model_not_found', 'model']);
  });

  it('refuses in the form that clients of OpenAI understand', async () => {
    const agent = await world.clientOf('agent');
    const auditor = await world.clientOf('auditor');
    const cases: [string, () => Promise<unknown>, number, string, string, string | null][] = [
      [
        'no such key',
        () => world.client('sk-none').chat.completions.create(ask),
        401,
        'authentication_error',
        'invalid_api_key',
        null,
      ],
      [
        'a role that only reads',
        () => auditor.chat.completions.create(ask),
        403,
        'permission_error',
        'forbidden',
        null,
      ],
      [
        'no such model',
        () => agent.chat.completions.create({ ...ask, model: 'gpt-9' }),
        404,
        'invalid_request_error',
        'model_not_found',
        'model',
      ],
      [
        'a model for something else',
        () => agent.chat.completions.create({ ...ask, model: 'soma-embed' }),
        404,
        'invalid_request_error',
        'model_not_found',
        'model',
      ],
      [
        'two answers',
        () => agent.chat.completions.create({ ...ask, n: 2 }),
        400,
        'invalid_request_error',
        'invalid_request',
        'n',
      ],
      [
        'no message',
        () => agent.chat.completions.create({ ...ask, messages: [] }),
        400,
        'invalid_request_error',
        'invalid_request',
        'messages',
      ],
    ];
    for (const [name, call, ...expected] of cases) {
      const error = await refused(call());
      assert.deepEqual([error.status, error.type, error.code, error.param], expected, `${name}: ${error.message}`);
      assert.ok(error.requestID, name);
    }
    world.limit = { limit: 'at most 2 requests in 60 s', retryAfterSeconds: 7 };
    const error = await refused(agent.chat.completions.create(ask));
    world.limit = null;
    assert.deepEqual([error.status, error.type, error.code], [429, 'rate_limit_error', 'rate_limit_exceeded']);
    assert.equal(error.headers?.get('retry-after'), '7');
  });

  it('refuses before it runs what would exceed a budget, and its client does not try again', async () => {
    await world.putBudget({ tokens: 20, period: 'day' });
    const asked = world.front.requests.length;
    const verdicts = world.verdicts.length;
    const error = await refused(
      world.client(await world.token('agent'), { maxRetries: 2 }).chat.completions.create(ask),
    );
    assert.deepEqual([error.status, error.type, error.code], [429, 'insufficient_quota', 'insufficient_quota']);
    assert.match(error.message, /^429 the day budget of tenant acme is 20 tokens, 0 of them are used or reserved/);
    assert.ok(Number(error.headers?.get('retry-after')) > 0);
    assert.equal(world.front.requests.length, asked, 'no model was asked');
    assert.equal(world.verdicts.length, verdicts + 1, 'one request was sent');
    const [told] = await world.told(error.requestID);
    assert.deepEqual([told?.data.outcome, told?.data.promptTokens], ['refused', 0]);
    await world.clearBudgets();
  });

  it('counts a session, a team and a persona, and stops at the first that is used up', async () => {
    const inSession = await world.clientOf('agent', { 'x-soma-session': agentSession, 'x-soma-team': 'green' });
    const { request_id } = await inSession.chat.completions.create(ask).withResponse();
    const [told] = await world.told(request_id);
    assert.deepEqual([told?.data.sessionId, told?.data.team], [agentSession, 'green']);
    await world.putBudget({ scope: 'session', id: '*', tokens: 5 });
    const error = await refused(inSession.chat.completions.create(ask));
    assert.match(error.message, new RegExp(`the total budget of session ${agentSession} is 5 tokens`));
    assert.ok(
      (await (await world.clientOf('agent')).chat.completions.create(ask)).usage,
      'without a session there is room',
    );
    await world.clearBudgets();
    await world.putBudget({ scope: 'team', id: 'green', costMicros: 3, period: 'month' });
    assert.match(
      (await refused(inSession.chat.completions.create(ask))).message,
      /the month budget of team green is 3 costMicros/,
    );
    await world.clearBudgets();
    await world.putBudget({ scope: 'persona', id: 'acme-agent', tokens: 1 });
    assert.match(
      (await refused(inSession.chat.completions.create(ask))).message,
      /budget of persona acme-agent is 1 tokens/,
    );
    await world.clearBudgets();
  });

  it('never uses more than a budget, however many ask at once', async () => {
    const client = await world.clientOf('agent');
    await world.putBudget({ tokens: 400 });
    const answers = await Promise.allSettled(Array.from({ length: 20 }, () => client.chat.completions.create(ask)));
    const served = answers.filter(({ status }) => status === 'fulfilled');
    const used = served.reduce(
      (sum, answer) => sum + (answer.status === 'fulfilled' ? (answer.value.usage?.total_tokens ?? 0) : 0),
      0,
    );
    assert.ok(served.length > 0 && served.length < 20, `${served.length} were served`);
    assert.ok(used <= 400, `${used} tokens were used`);
    await world.spending.flush();
    const { body } = await world.ask('/v1/budgets');
    assert.deepEqual([body.budgets[0].used.tokens, body.budgets[0].reserved.tokens], [used, 0]);
    await world.clearBudgets();
  });

  it('asks a model of our own at once within what is leased, and gives out nothing that a recall forbids', async () => {
    const client = await world.clientOf('agent');
    const own = { ...ask, model: 'soma-own' };
    await world.putBudget({ tokens: 1_000_000 });
    await world.until(async () => {
      assert.ok((await client.chat.completions.create(ask)).usage);
      return (await world.leased()) > 0;
    }, 'room is leased');
    // The notice of the recall is still on its way.
    world.hub.follow(recallChannel, () => undefined);
    await world.putBudget({ tokens: 20 });
    assert.equal(await world.leased(), 0);
    const asked = world.front.requests.length;
    const { answer } = await world.whileNothingIsReserved(async () => {
      const sent = { answer: refused(client.chat.completions.create({ ...own, stream: true })) };
      await world.until(() => world.front.requests.length === asked + 1, 'the model is asked');
      return sent;
    });
    const error = await answer;
    assert.deepEqual([error.status, error.code], [429, 'insufficient_quota']);
    const billed = await world.whileNothingIsReserved(async () => {
      const sent = { answer: refused(client.chat.completions.create(ask)) };
      await sleep(300);
      assert.equal(world.front.requests.length, asked + 1, 'one that sends a bill is asked only when it is certain');
      return sent;
    });
    assert.equal((await billed.answer).code, 'insufficient_quota');
    assert.deepEqual(
      (await world.told(error.requestID)).map(({ data }) => [data.outcome, data.promptTokens]),
      [['refused', 0]],
    );
    world.hearRecalls();
    world.spending.recalled();
    assert.equal((await refused(client.chat.completions.create(own))).code, 'insufficient_quota');
    assert.equal(world.front.requests.length, asked + 1, 'no model is asked any more');
    await world.spending.flush();
    assert.equal(await world.held(), 0);
  });

  it('offers a model only tools that its caller may use', async () => {
    const client = await world.clientOf('agent');
    const { choices, usage } = await client.chat.completions.create({ ...ask, tools: [tool('memory.recall')] });
    assert.ok(choices.length === 1 && usage);
    const denied: [string, string, RegExp][] = [
      ['gone', 'soma.tools.deny_unknown_tool', /no tool gone is known/],
      ['web.fetch', 'soma.tools.deny_write_without_relation', /needs a relation/],
    ];
    const asked = world.front.requests.length;
    for (const [name, rule, reason] of denied) {
      const error = await refused(
        client.chat.completions.create({ ...ask, tools: [tool('memory.recall'), tool(name)] }),
      );
      assert.deepEqual([error.status, error.code, error.param], [403, 'tool_denied', 'tools.1']);
      assert.ok(
        error.message.includes(`tool ${name} is denied by ${rule}`) && reason.test(error.message),
        error.message,
      );
      const verdict = world.verdicts.findLast(({ service }) => service === 'tools');
      assert.deepEqual(
        [verdict?.requestId, verdict?.resource?.id, verdict?.allow, verdict?.rule],
        [error.requestID, name, false, rule],
      );
    }
    assert.equal(world.front.requests.length, asked);
    const inSession = await world.clientOf('agent', { 'x-soma-session': agentSession });
    assert.ok(
      (await inSession.chat.completions.create({ ...ask, tools: [tool('web.fetch')] })).usage,
      'a session holds the relation',
    );
    const strangers = await world.clientOf('stranger');
    assert.match(
      (await refused(strangers.chat.completions.create({ ...ask, tools: [tool('web.fetch')] }))).message,
      /deny_tenant/,
    );
  });

  it('cancels the model when its client leaves, and counts what was used', async () => {
    const long = { ...ask, max_tokens: 4000, stop: [] };
    const client = await world.clientOf('agent');
    // It can't be at its end before the client has left.
    await world.front.fail({ kind: 'stall', afterBytes: 1500 });
    const { data, request_id } = await client.chat.completions.create({ ...long, stream: true }).withResponse();
    for await (const chunk of data) if (chunk.choices[0]?.delta.content) break;
    await world.until(async () => (await world.told(request_id)).length === 1, 'its use is told');
    const [told] = await world.told(request_id);
    assert.equal(told?.data.outcome, 'cancelled');
    assert.ok(Number(told.data.promptTokens) > 0 && Number(told.data.completionTokens) > 0);
    await world.until(() => world.front.open === 0, 'the model is left');
    await world.front.fail({ kind: 'slow', ms: 5000 });
    const impatient = new AbortController();
    const whole = client.chat.completions.create(ask, { signal: impatient.signal }).catch(() => 'left');
    await world.until(() => world.front.open === 1, 'the model is asked');
    impatient.abort();
    assert.equal(await whole, 'left');
    await world.until(() => world.front.open === 0, 'the model is left while a whole answer is waited for');
    await world.front.fail({ kind: 'none' });
    await world.until(async () => (await world.held()) === 0, 'nothing is held');
  });

  it('ends streams of a halted tenant at once and takes no new ones', async () => {
    await world.front.fail({ kind: 'stall', afterBytes: 600 });
    const client = await world.clientOf('agent');
    const { data, request_id } = await client.chat.completions.create({ ...ask, stream: true }).withResponse();
    const ended = (async () => {
      for await (const _ of data);
    })();
    const said = refused(ended);
    await world.operate('/v1/tenants/acme/halt', { reason: 'of this test' });
    const error = await said;
    assert.deepEqual([error.code, error.type], ['halted', 'permission_error']);
    await world.front.fail({ kind: 'none' });
    const next = await refused(client.chat.completions.create(ask));
    assert.deepEqual([next.status, next.code], [423, 'halted']);
    assert.ok(await client.models.list(), 'looking is no work');
    await world.until(async () => (await world.told(request_id)).length === 1, 'its use is told');
    assert.equal((await world.told(request_id))[0]?.data.outcome, 'cancelled');
    await world.operate('/v1/tenants/acme/resume', { reason: 'of this test' });
    await world.until(() => !world.control.halted('acme'), 'work may go on');
  });

  it('refuses what attackers send, asks no model for it, and shows nothing of it', async () => {
    const asked = world.front.requests.length;
    const logged = world.lines.length;
    for (const { name, status, code, headers, path = '/v1/chat/completions', body, chunked } of attacks) {
      const content = typeof body === 'string' ? body : JSON.stringify(body);
      const answer = await world.ask(path, {
        method: 'POST',
        ...(headers && { headers }),
        ...(chunked ? { body: new Blob([content]).stream() as unknown as string, duplex: 'half' } : { body: content }),
      } as RequestInit);
      assert.deepEqual(
        [answer.status, answer.body.error?.code],
        [status, code],
        `${name}: ${JSON.stringify(answer.body)}`,
      );
      assert.deepEqual(Object.keys(answer.body.error), ['message', 'type', 'param', 'code'], name);
      assert.equal(JSON.stringify(answer.body).includes('hunter2'), false, `${name} is repeated`);
    }
    assert.equal(world.front.requests.length, asked);
    assert.equal(world.lines.slice(logged).join('').includes('hunter2'), false);
  });

  it('writes no prompt, no answer and no credential to its log, whatever happens', async () => {
    const secret = 'hunter2-of-the-prompt';
    const token = await world.token('agent');
    const client = world.client(token);
    const prompt = { ...ask, messages: [{ role: 'user' as const, content: `${secret} What is a session?` }] };
    const { choices } = await client.chat.completions.create(prompt);
    for (const fault of [
      { kind: 'status', status: 500 },
      { kind: 'reset', afterBytes: 300 },
    ] as const) {
      await world.front.fail(fault);
      await refused(client.chat.completions.create({ ...prompt, stream: true }).then(toEnd));
    }
    await world.front.fail({ kind: 'none' });
    const written = world.lines.join('');
    const answerText = choices[0]?.message.content ?? '';
    for (const word of [secret, token, answerText]) assert.equal(written.includes(word), false, `${word} was written`);
    const recorded = JSON.stringify(world.verdicts);
    for (const word of [secret, token]) assert.equal(recorded.includes(word), false, `${word} was recorded`);
  });

  it('takes nobody for somebody else by headers', async () => {
    const headers = {
      'x-soma-tenant': 'globex',
      'x-soma-subject': 'gina',
      'x-soma-persona': 'globex-agent',
      'x-request-id': 'mine',
    };
    const { request_id } = await (await world.clientOf('agent', headers)).chat.completions.create(ask).withResponse();
    assert.notEqual(request_id, 'mine');
    const [told] = await world.told(request_id);
    assert.deepEqual([told?.tenant, told?.data.subject, told?.data.persona], ['acme', 'mary', 'acme-agent']);
  });

  it('lets administrators set budgets, others look at them, and nobody touch those of another tenant', async () => {
    const [admin, agent] = [await world.token('admin'), await world.token('agent')];
    const put = (bearer: string, path: string, body: object) =>
      world.ask(`/v1/budgets/${path}`, { method: 'PUT', bearer, body: JSON.stringify(body) });
    const set = await put(admin, 'tenant/acme/month', { tokens: 5000 });
    assert.equal(set.status, 200, JSON.stringify(set.body));
    const { renewsAt, ...budget } = set.body;
    const none = { tokens: 0, costMicros: 0 };
    assert.deepEqual(budget, {
      ...{ scope: 'tenant', id: 'acme', period: 'month', tokens: 5000, costMicros: null },
      used: none,
      reserved: none,
    });
    assert.ok(Date.parse(renewsAt) > Date.now());
    assert.equal((await put(admin, 'team/*/day', { costMicros: 9 })).status, 200);
    const answers = [
      [await put(admin, 'tenant/globex/month', { tokens: 1 }), 404],
      [await put(admin, 'tenant/acme/month', {}), 400],
      [await put(admin, 'tenant/acme/month', { tokens: -1 }), 400],
      [await put(admin, 'tenant/acme/year', { tokens: 1 }), 400],
      [await put(admin, 'team/..%2F..%2Fx/day', { tokens: 1 }), 400],
      [await put(agent, 'tenant/acme/month', { tokens: 1_000_000 }), 403],
      [await world.ask('/v1/budgets/tenant/acme/month', { method: 'DELETE', bearer: agent }), 403],
      [
        await world.ask('/v1/budgets/tenant/acme/month', { method: 'DELETE', bearer: await world.token('stranger') }),
        403,
      ],
    ] as const;
    for (const [answer, status] of answers) assert.equal(answer.status, status, JSON.stringify(answer.body));
    const listed = async (bearer: string) => {
      const { body } = await world.ask('/v1/budgets', { bearer });
      return body.budgets.map(({ scope, id, tokens }: Record<string, unknown>) => [scope, id, tokens]);
    };
    assert.deepEqual(await listed(agent), [
      ['tenant', 'acme', 5000],
      ['team', '*', null],
    ]);
    assert.deepEqual(await listed(await world.token('stranger')), []);
    for (const removed of [true, false]) {
      for (const path of ['tenant/acme/month', 'team/*/day']) {
        const { body } = await world.ask(`/v1/budgets/${path}`, { method: 'DELETE', bearer: admin });
        assert.deepEqual(body, { removed });
      }
    }
    assert.deepEqual(await listed(agent), []);
  });

  it('says when the model fails, charges nothing for it, and tells it', async () => {
    const client = await world.clientOf('agent');
    await world.front.fail({ kind: 'status', status: 500 });
    const failed = await refused(client.chat.completions.create(ask));
    assert.ok([502, 503].includes(failed.status ?? 0), failed.message);
    const [told] = await world.told(failed.requestID);
    assert.deepEqual([told?.data.outcome, told?.data.promptTokens, told?.data.costMicros], ['failed', 0, 0]);
    await world.front.fail({ kind: 'status', status: 429, headers: { 'retry-after': '3' } });
    const busy = await refused(client.chat.completions.create({ ...ask, stream: true }));
    assert.deepEqual([busy.status, busy.headers?.get('retry-after')], [429, '3']);
    await world.front.fail({ kind: 'none' });
  });
});
