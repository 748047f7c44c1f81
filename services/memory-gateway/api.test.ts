import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fetchTrusting } from '@somagent/kit';
import { objectOf, type Tuple, tenantObject, userOf } from '@somagent/relations';
import { hasOpenFga } from '@somagent/relations/testing/openfga.ts';
import { MemoryClient, MemoryRefused } from './client.ts';
import { routes } from './routes.ts';
import { NoSummary } from './summarize.ts';
import { startMemoryService, type TestMemoryService } from './testing/service.ts';

const people = {
  ada: { sub: 'ada', tenant: 'acme', roles: ['member'], teams: ['blue'] },
  bob: { sub: 'bob', tenant: 'acme', roles: ['member'], teams: [] },
  carol: { sub: 'carol', tenant: 'acme', roles: ['tenant-admin'], teams: [] },
  olga: { sub: 'olga', tenant: 'acme', roles: ['auditor'], teams: [] },
  /** Says that it is in blue, and is not. */
  liar: { sub: 'liar', tenant: 'acme', roles: ['member'], teams: ['blue'] },
  gil: { sub: 'gil', tenant: 'globex', roles: ['tenant-admin'], teams: ['blue'] },
  operator: { sub: 'root', roles: ['operator'], teams: [] },
};
type Who = keyof typeof people;

const session = randomUUID();

function facts(): readonly Tuple[] {
  const member = (tenant: string, subject: string): Tuple => ({
    user: userOf({ tenant, subject }),
    relation: 'member',
    object: tenantObject(tenant),
  });
  const own = (type: 'team' | 'session' | 'persona', tenant: string, id: string): Tuple => ({
    user: tenantObject(tenant),
    relation: 'tenant',
    object: objectOf(type, tenant, id),
  });
  const ada = userOf({ tenant: 'acme', subject: 'ada' });
  return [
    ...['ada', 'bob', 'carol', 'olga', 'liar'].map((subject) => member('acme', subject)),
    member('globex', 'gil'),
    { user: userOf({ tenant: 'acme', subject: 'carol' }), relation: 'admin', object: tenantObject('acme') },
    { user: userOf({ tenant: 'globex', subject: 'gil' }), relation: 'admin', object: tenantObject('globex') },
    own('team', 'acme', 'blue'),
    own('team', 'globex', 'blue'),
    { user: ada, relation: 'member', object: objectOf('team', 'acme', 'blue') },
    own('session', 'acme', session),
    { user: ada, relation: 'owner', object: objectOf('session', 'acme', session) },
    own('persona', 'acme', 'scout'),
    { user: objectOf('team', 'acme', 'blue'), relation: 'team', object: objectOf('persona', 'acme', 'scout') },
  ];
}

describe('the API of the memory gateway', { skip: !hasOpenFga() && 'OpenFGA is not built', timeout: 600_000 }, () => {
  let service: TestMemoryService;
  let trusting: typeof fetch;
  let summarizedFor: string | undefined;
  let summary: () => Promise<{ text: string; used: number; model: string }>;

  before(async () => {
    service = await startMemoryService({
      summarize: (tenant) => {
        summarizedFor = tenant;
        return summary();
      },
    });
    trusting = fetchTrusting(service.caFile);
    await service.relate(facts());
  });
  after(() => service.stop());

  async function ask(who: Who | null, method: string, path: string, content?: unknown, raw?: string) {
    const token = raw ?? (who === null ? undefined : await service.token(people[who]));
    const response = await trusting(`${service.url}${path}`, {
      method,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(content !== undefined && { 'content-type': 'application/json' }),
      },
      ...(content !== undefined && { body: JSON.stringify(content) }),
    });
    const text = await response.text();
    // biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
    return { status: response.status, text, body: (text.startsWith('{"kind') ? null : JSON.parse(text)) as any };
  }
  const store = async (who: Who, text: string, more: object = {}) =>
    (await ask(who, 'POST', '/v1/memories', { text, kind: 'semantic', ...more })).body.memory;
  const recall = async (who: Who, query: string, more: object = {}) =>
    ask(who, 'POST', '/v1/memories/recall', { query, ...more });
  const idsOf = (answer: { body: { memories: { id: string }[] } }) => answer.body.memories.map(({ id }) => id);
  const lastOf = (rule: RegExp) => service.verdicts.filter((verdict) => rule.test(verdict.rule)).at(-1);
  const workload = async (name: string) => readFileSync(await service.workloadFile(name), 'utf8');
  const clientOf = async (name: string) =>
    new MemoryClient({ url: service.url, caFile: service.caFile, tokenFile: await service.workloadFile(name) });

  it('answers nobody without a token, on any route', async () => {
    for (const { method, path } of Object.values(routes)) {
      const answer = await ask(null, method.toUpperCase(), path.replaceAll(/\{\w+\}/g, randomUUID()));
      assert.deepEqual([answer.status, answer.body.type], [401, 'urn:somagent:problem:token-missing'], path);
    }
  });

  it('stores, finds and shows a memory to its owner, and asks the policy of data beside that of the route', async () => {
    const made = await ask('ada', 'POST', '/v1/memories', { text: 'My bicycle is red', kind: 'semantic' });
    assert.deepEqual([made.status, made.body.created, made.body.memory.owner], [201, true, 'ada']);
    const { id } = made.body.memory;
    const again = await ask('ada', 'POST', '/v1/memories', { text: 'my bicycle  is RED', kind: 'semantic' });
    assert.deepEqual([again.status, again.body.memory.id, again.body.memory.seen], [200, id, 2]);
    const found = await recall('ada', 'bicycle');
    assert.deepEqual([found.status, idsOf(found)], [200, [id]]);
    const shown = await ask('ada', 'GET', `/v1/memories/${id}`);
    assert.deepEqual([shown.status, shown.body.text], [200, 'My bicycle is red']);
    const data = lastOf(/^soma\.data\.allow_by_role$/);
    assert.deepEqual(
      [data?.capability, data?.input?.relation, data?.input?.resource.id],
      ['memory:read', { required: 'can_view', held: true }, `memory:acme/${id}`],
    );
    assert.ok(lastOf(/^soma\.gateway\.allow_by_role$/));
  });

  it('hides a memory from everybody else of the tenant, by every route', async () => {
    const { id } = await store('ada', 'The wedding is in June');
    for (const who of ['bob', 'olga', 'liar', 'gil', 'carol'] as const) {
      assert.equal((await ask(who, 'GET', `/v1/memories/${id}`)).status, 404, `${who} reads`);
      const found = await recall(who, 'When is the wedding?');
      assert.deepEqual(
        [found.status === 403 || idsOf(found).length === 0, found.text.includes(id)],
        [true, false],
        who,
      );
    }
    for (const who of ['bob', 'liar', 'gil'] as const) {
      assert.equal((await ask(who, 'DELETE', `/v1/memories/${id}`)).status, 404, `${who} forgets`);
    }
    assert.equal((await ask('ada', 'GET', `/v1/memories/${id}`)).status, 200);
  });

  it('shares with a team what was stored for it, with those who are in it', async () => {
    const { id } = await store('ada', 'The team meets on Tuesdays', { team: 'blue' });
    assert.ok(idsOf(await recall('ada', 'When does the team meet?', { filter: { team: 'blue' } })).includes(id));
    assert.equal((await recall('liar', 'When does the team meet?', { filter: { team: 'blue' } })).status, 404);
    assert.deepEqual(idsOf(await recall('liar', 'When does the team meet?')), [], 'a claim of the token is not enough');
    assert.deepEqual(idsOf(await recall('gil', 'When does the team meet?')), [], 'a team of the same name elsewhere');
    assert.equal((await ask('bob', 'POST', '/v1/memories', { text: 'Poison', team: 'blue' })).status, 404);
    assert.equal((await ask('carol', 'GET', `/v1/memories/${id}`)).status, 200, 'the administrator sees its teams');
  });

  it('opens sessions and personas to those who have the relation, and does not know those of others', async () => {
    const inSession = await store('ada', 'The session spoke of whales', { sessionId: session });
    const ofPersona = await store('ada', 'Scouts speak of whales too', { persona: 'scout' });
    const mine = await recall('ada', 'whales', { filter: { sessionId: session } });
    assert.deepEqual(idsOf(mine), [inSession.id]);
    assert.deepEqual(idsOf(await recall('carol', 'whales', { filter: { sessionId: session } })), [inSession.id]);
    assert.deepEqual(idsOf(await recall('carol', 'whales', { filter: { persona: 'scout' } })), [ofPersona.id]);
    for (const who of ['bob', 'gil'] as const) {
      assert.equal((await recall(who, 'whales', { filter: { sessionId: session } })).status, 404, who);
      assert.equal((await recall(who, 'whales', { filter: { persona: 'scout' } })).status, 404, who);
      const planted = { text: 'Whales are fish', sessionId: session };
      const status = who === 'gil' ? 403 : 404;
      assert.equal((await ask(who, 'POST', '/v1/memories', planted)).status, status, who);
      assert.equal((await ask(who, 'POST', '/v1/memories', { text: 'x', persona: 'scout' })).status, status, who);
    }
    const refusal = lastOf(/^soma\.data\.deny_relation$/);
    assert.deepEqual([refusal?.allow, refusal?.status], [false, 404]);
  });

  it('gives no other tenant anything: not by ids, filters, owners, sessions, teams or names of collections', async () => {
    const secret = await store('ada', 'The password of the vault is swordfish', { sessionId: session, team: 'blue' });
    const attacks: readonly object[] = [
      {},
      { filter: { owner: 'ada' } },
      { filter: { owner: 'acme/ada' } },
      { filter: { team: 'blue' } },
      { filter: { team: '../acme/blue' } },
      { filter: { team: 'blue#member' } },
      { filter: { persona: 'scout' } },
      { filter: { sessionId: session } },
      { filter: { tenant: 'acme' } },
      { filter: { should: [{ key: 'tenant', match: { value: 'acme' } }] } },
      { tenant: 'acme' },
      { collection: 'memory_shared' },
      { onBehalf: { tenant: 'acme', subject: 'ada' } },
      { filter: { kinds: ['semantic', 'episodic', 'summary'] }, limit: 100 },
    ];
    for (const attack of attacks) {
      const answer = await recall('gil', 'What is the password of the vault?', attack);
      assert.ok(!answer.text.includes('swordfish'), JSON.stringify(attack));
      if (answer.status === 200) assert.deepEqual(idsOf(answer), [], JSON.stringify(attack));
      else assert.ok([400, 403, 404].includes(answer.status), `${answer.status} of ${JSON.stringify(attack)}`);
    }
    for (const method of ['GET', 'DELETE']) {
      assert.equal((await ask('gil', method, `/v1/memories/${secret.id}`)).status, 404);
    }
    const wiped = await ask('gil', 'POST', '/v1/memories/forget', { all: true });
    assert.deepEqual([wiped.status, wiped.body.forgotten], [200, 0], 'an administrator forgets in its own tenant');
    assert.ok(!(await ask('gil', 'GET', '/v1/memories/export')).text.includes('swordfish'));
    assert.ok(!(await ask('gil', 'GET', '/v1/memories/export?owner=ada')).text.includes('swordfish'));
    assert.equal((await recall('operator', 'vault')).status, 403, 'operators see nothing that a tenant says');
    // The control: whose it is finds it by the same question.
    assert.ok(idsOf(await recall('ada', 'What is the password of the vault?')).includes(secret.id));
  });

  it('lets only the listed workload ask for others, and only within their tenant', async () => {
    const orchestrator = await clientOf('orchestrator');
    const signal = AbortSignal.timeout(60_000);
    const behalf = { tenant: 'acme', subject: 'ada', sessionId: session };
    const source = `turn/${randomUUID()}`;
    const episode = {
      text: 'Asked: Where do penguins live? Answered: In the south.',
      kind: 'episodic',
      source,
    } as const;
    await orchestrator.remember(behalf, episode, signal);
    await orchestrator.remember(behalf, episode, signal);
    const question = { query: 'penguins', limit: 5, deadlineMs: 5000 };
    const { memories } = await orchestrator.recall(behalf, question, signal);
    assert.equal(memories[0]?.text, episode.text);
    assert.equal(memories.filter(({ text }) => text === episode.text).length, 1);
    const elsewhere = await orchestrator.recall({ tenant: 'globex', subject: 'gil' }, question, signal);
    assert.deepEqual(elsewhere.memories, []);
    const refused = { name: 'MemoryRefused', status: 403 };
    for (const stranger of [
      { tenant: 'globex', subject: 'ada' },
      { tenant: 'acme', subject: 'nobody' },
    ]) {
      await assert.rejects(orchestrator.recall(stranger, question, signal), refused, JSON.stringify(stranger));
    }
    await assert.rejects((await clientOf('relations')).recall(behalf, question, signal), refused);
    await assert.rejects((await clientOf('stranger')).recall(behalf, question, signal), refused);
    const token = await workload('orchestrator');
    assert.equal((await ask(null, 'POST', '/v1/memories/recall', { query: 'x' }, token)).status, 400);
    assert.equal((await ask(null, 'POST', '/v1/memories/forget', {}, token)).status, 403);
    assert.equal((await ask(null, 'GET', '/v1/memories/export', undefined, token)).status, 403);
    const behalfOfAda = { query: 'penguins', onBehalf: behalf };
    assert.equal((await ask('bob', 'POST', '/v1/memories/recall', behalfOfAda)).status, 403);
  });

  it('does nothing for whoever is suspended or halted, whoever asks for them', async () => {
    const orchestrator = await clientOf('orchestrator');
    const signal = AbortSignal.timeout(60_000);
    const behalf = { tenant: 'acme', subject: 'ada' };
    service.control({ halted: { all: false, tenants: ['acme'] } });
    const halted = orchestrator.remember(behalf, { text: 'x', kind: 'episodic', source: 'turn/x' }, signal);
    await assert.rejects(
      halted,
      (error: unknown) => error instanceof MemoryRefused && error.status === 423 && !error.isFinal,
    );
    service.control({ suspended: { tenants: [], users: ['acme/ada'] } });
    await assert.rejects(orchestrator.recall(behalf, { query: 'x', limit: 1, deadlineMs: 100 }, signal), {
      status: 403,
    });
    assert.equal((await recall('ada', 'x')).status, 403);
    service.control({});
    assert.equal((await recall('ada', 'x')).status, 200);
  });

  it('forgets what is one’s own with a proof; all of the tenant only for its administrator', async () => {
    const turn = `turn/${randomUUID()}`;
    const kept = await store('bob', 'Bob collects stamps');
    const { id } = await store('ada', 'Ada collects coins', { source: turn });
    const gone = await ask('ada', 'DELETE', `/v1/memories/${id}`);
    assert.deepEqual([gone.status, gone.body.forgotten, gone.body.proven], [200, 1, true]);
    assert.equal((await ask('ada', 'GET', `/v1/memories/${id}`)).status, 404);
    const late = await ask('ada', 'POST', '/v1/memories', {
      text: 'Ada collects coins',
      kind: 'semantic',
      source: turn,
    });
    assert.deepEqual([late.status, late.body.type], [410, 'urn:somagent:problem:memory-forgotten']);
    assert.equal((await ask('ada', 'POST', '/v1/memories/forget', { all: true })).status, 403);
    assert.equal((await ask('ada', 'POST', '/v1/memories/forget', { filter: { owner: 'bob' } })).status, 403);
    assert.equal((await ask('olga', 'POST', '/v1/memories/forget', {})).status, 403);
    assert.equal((await ask('bob', 'GET', `/v1/memories/${kept.id}`)).status, 200);
    const ofBob = await ask('carol', 'POST', '/v1/memories/forget', { filter: { owner: 'bob' } });
    assert.deepEqual([ofBob.status, ofBob.body.proven, ofBob.body.forgotten >= 1], [200, true, true]);
    assert.equal((await ask('bob', 'GET', `/v1/memories/${kept.id}`)).status, 404);
  });

  it('exports a subject line by line for the administrator, and records it before', async () => {
    await store('ada', 'Ada plays the flute');
    await service.database.events();
    const { status, text } = await ask('carol', 'GET', '/v1/memories/export?owner=ada');
    const lines = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.equal(status, 200);
    assert.deepEqual([lines[0].kind, lines[0].owner, lines[0].count], ['export', 'ada', lines.length - 2]);
    assert.deepEqual(lines.at(-1), { kind: 'end', sent: lines.length - 2 });
    const memories = lines.filter(({ kind }) => kind === 'memory').map(({ memory }) => memory);
    assert.ok(memories.every(({ owner }) => owner === 'ada'));
    assert.ok(memories.some(({ text: each }) => each === 'Ada plays the flute'));
    const [event] = await service.database.events();
    assert.deepEqual([event?.type, event?.actor, event?.data.count], ['memory.exported', 'carol', lines.length - 2]);
    for (const who of ['ada', 'olga'] as const)
      assert.equal((await ask(who, 'GET', '/v1/memories/export')).status, 403);
  });

  it('remembers the summary of the model, and makes none up when it has none', async () => {
    await store('bob', 'Bob moved to Lisbon');
    summary = async () => ({ text: 'Bob lives in Lisbon.', used: 1, model: 'a-model' });
    const made = await ask('bob', 'POST', '/v1/memories/summarize', {});
    assert.deepEqual(
      [made.status, made.body.memory.kind, made.body.memory.text],
      [201, 'summary', 'Bob lives in Lisbon.'],
    );
    assert.equal(summarizedFor, 'acme');
    summary = () => Promise.reject(new NoSummary('a-model answered with nothing'));
    const failed = await ask('bob', 'POST', '/v1/memories/summarize', {});
    assert.deepEqual([failed.status, failed.body.type], [502, 'urn:somagent:problem:no-summary']);
    const { memories } = (await recall('bob', 'Lisbon', { filter: { kinds: ['summary'] } })).body;
    assert.equal(memories.length, 1);
    const nothing = { filter: { since: '2999-01-01T00:00:00.000Z' } };
    assert.equal((await ask('bob', 'POST', '/v1/memories/summarize', nothing)).status, 409);
  });
});
