import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fetchTrusting } from '@somagent/kit';
import { parseNote } from '../checkpoint/note.ts';
import { leafOf } from '../log/leaf.ts';
import { verifyConsistency, verifyInclusion } from '../merkle/index.ts';
import { verdictEvent } from '../testing/events.ts';
import { startAuditService, type TestAuditService } from '../testing/service.ts';
import { routes } from './routes.ts';

const people = {
  operator: { sub: 'olga', roles: ['operator'], preferred_username: 'olga' },
  auditor: { sub: 'anna', tenant: 'acme', roles: ['auditor'], preferred_username: 'anna' },
  foreign: { sub: 'gina', tenant: 'globex', roles: ['auditor'], preferred_username: 'gina' },
  member: { sub: 'mary', tenant: 'acme', roles: ['member'], preferred_username: 'mary' },
};
type Who = keyof typeof people;

let service: TestAuditService;
let trusting: typeof fetch;
before(async () => {
  service = await startAuditService();
  trusting = fetchTrusting(service.caFile);
  const events = ['acme', 'globex', null, 'acme', 'globex'].map((tenant, place) => verdictEvent(tenant, `r-${place}`));
  await service.log.append(events.map(({ topic, value }) => leafOf(topic, value)));
  await service.checkpointer.run();
});
after(() => service?.stop());

async function raw(who: Who | null, path: string): Promise<Response> {
  const headers: Record<string, string> =
    who === null ? {} : { authorization: `Bearer ${await service.token(people[who])}` };
  return trusting(`${service.url}${path}`, { headers });
}

// biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
async function ask(who: Who | null, path: string): Promise<{ status: number; body: any }> {
  const response = await raw(who, path);
  return { status: response.status, body: await response.json() };
}

const concrete = (path: string) => path.replace('{index}', '0').replace('{requestId}', 'r-0');

test('nobody gets anything without a token, and a member nothing of the audit log', async () => {
  for (const { path } of Object.values(routes)) {
    assert.equal((await ask(null, concrete(path))).status, 401, path);
  }
  for (const path of [
    '/v1/audit/entries',
    '/v1/audit/entries/0',
    '/v1/audit/export',
    '/v1/audit/proofs/consistency?from=0',
  ]) {
    assert.deepEqual((await ask('member', path)).body.type, 'urn:somagent:problem:forbidden', path);
  }
});

test('an auditor sees the entries of the own tenant, an operator those of all', async () => {
  const tenants = async (who: Who) => {
    const { body } = await ask(who, '/v1/audit/entries?limit=5&topic=verdict.decisions');
    return body.entries.map(({ index, leaf }: { index: number; leaf: string }) => [
      index,
      JSON.parse(leaf).event.tenant,
    ]);
  };
  assert.deepEqual((await tenants('auditor')).slice(0, 2), [
    [0, 'acme'],
    [3, 'acme'],
  ]);
  assert.deepEqual((await tenants('operator')).slice(0, 5), [
    [0, 'acme'],
    [1, 'globex'],
    [2, null],
    [3, 'acme'],
    [4, 'globex'],
  ]);
  for (const [who, index, status] of [
    ['auditor', 0, 200],
    ['auditor', 1, 404],
    ['auditor', 2, 404],
    ['foreign', 0, 404],
    ['foreign', 1, 200],
    ['operator', 2, 200],
  ] as const) {
    assert.equal((await ask(who, `/v1/audit/entries/${index}`)).status, status, `${who} ${index}`);
    assert.equal(
      (await ask(who, `/v1/audit/proofs/inclusion?index=${index}&size=5`)).status,
      status,
      `${who} ${index}`,
    );
  }
});

test('pages follow one another without a gap', async () => {
  const seen: number[] = [];
  for (let from: number | null = 0; from !== null && from < 5; ) {
    const { body } = await ask('operator', `/v1/audit/entries?limit=2&from=${from}`);
    seen.push(...body.entries.map(({ index }: { index: number }) => index));
    from = body.next;
  }
  assert.deepEqual(seen.slice(0, 5), [0, 1, 2, 3, 4]);
});

test('a verdict is found by the id of its request, by its tenant only', async () => {
  const own = await ask('auditor', '/v1/verdicts/r-3');
  assert.deepEqual([own.status, own.body.verdicts[0].index], [200, 3]);
  assert.equal(own.body.verdicts[0].event.data.rule, 'soma.gateway.allow_by_role');
  assert.equal((await ask('foreign', '/v1/verdicts/r-3')).status, 404);
  assert.equal((await ask('operator', '/v1/verdicts/r-2')).status, 200);
});

test('proofs verify against the checkpoint that log and witness signed', async () => {
  const text = await (await raw('auditor', '/v1/audit/checkpoint')).text();
  const note = parseNote(text);
  const { body: keys } = await ask('auditor', '/v1/audit/keys');
  assert.match(keys.log, /^audit\.example\/log\+[0-9a-f]{8}\+/);
  assert.deepEqual(
    note.signatures.map(({ name }) => name),
    ['audit.example/log', 'witness.example/w1'],
  );
  const [, size, root] = note.text.split('\n');
  const tree = { size: Number(size), root: Buffer.from(root ?? '', 'base64') };
  const { body: proof } = await ask('auditor', `/v1/audit/proofs/inclusion?index=3&size=${size}`);
  const hashes = proof.hashes.map((hash: string) => Buffer.from(hash, 'base64'));
  assert.ok(verifyInclusion({ index: 3, hash: Buffer.from(proof.leafHash, 'base64') }, tree, hashes));
  assert.ok(!verifyInclusion({ index: 2, hash: Buffer.from(proof.leafHash, 'base64') }, tree, hashes));
  const first = Buffer.from((await ask('auditor', '/v1/audit/entries/0')).body.hash, 'base64');
  const { body: grown } = await ask('auditor', `/v1/audit/proofs/consistency?from=1&to=${size}`);
  const steps = grown.hashes.map((hash: string) => Buffer.from(hash, 'base64'));
  assert.ok(verifyConsistency({ size: 1, root: first }, tree, steps));
  for (const path of ['inclusion?index=3&size=99999', 'consistency?from=9&to=3', 'consistency?from=0&to=99999']) {
    assert.equal((await ask('auditor', `/v1/audit/proofs/${path}`)).status, 400, path);
  }
});

test('an export is recorded before it leaves, and shows a tenant hashes only of the others', async () => {
  const lines = (await (await raw('auditor', '/v1/audit/export')).text()).trimEnd().split('\n');
  const kinds = lines.slice(0, 7).map((line) => JSON.parse(line).kind);
  assert.deepEqual(kinds, ['log', 'entry', 'hash', 'hash', 'entry', 'hash', 'checkpoint']);
  assert.doesNotMatch(lines.join('\n'), /globex/);
  const { body } = await ask('auditor', '/v1/audit/entries?topic=audit.control');
  const event = JSON.parse(body.entries.at(-1).leaf).event;
  assert.deepEqual([event.type, event.tenant, event.actor.id, event.data.from], ['audit.exported', 'acme', 'anna', 0]);
});

test('verdicts about the audit service are in the log itself, also while Kafka is away', async () => {
  const response = await raw('auditor', '/v1/audit/entries/1');
  const requestId = response.headers.get('x-request-id') ?? '';
  await service.verdicts.flush();
  const { body } = await ask('auditor', `/v1/verdicts/${requestId}`);
  const { service: name, route, capability, allow } = body.verdicts[0].event.data;
  assert.deepEqual([name, route, capability, allow], ['audit', 'getEntry', 'audit:read', true]);
});
