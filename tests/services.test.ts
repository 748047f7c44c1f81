/** Sessions through the gateway, as a client sees them. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, test } from 'node:test';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { freezeModel } from './support/model.ts';
import { type Answer, call, events, type SentEvent, tokenOf } from './support/session-api.ts';

interface Session {
  readonly id: string;
  readonly workflowId: string;
  readonly status: string;
  readonly closeReason: string | null;
  readonly turn?: Turn;
  readonly turns?: Turn[];
}

let acme = '';
let globex = '';
before(async () => {
  [acme, globex] = await Promise.all([tokenOf('acme-agent'), tokenOf('globex-agent')]);
});

const start = async (body: unknown = {}, headers: Record<string, string> = {}): Promise<Session> => {
  const { status, body: session } = await call<Session>('/v1/sessions', { method: 'POST', token: acme, body, headers });
  assert.equal(status, 201, JSON.stringify(session));
  return session;
};
const ask = (id: string, prompt: string, headers: Record<string, string> = {}): Promise<Answer<Turn>> =>
  call<Turn>(`/v1/sessions/${id}/turns`, { method: 'POST', token: acme, body: { prompt }, headers });
const close = (id: string) => call<Session>(`/v1/sessions/${id}`, { method: 'DELETE', token: acme });
const textOf = (stream: readonly SentEvent[]) =>
  stream
    .filter(({ type }) => type === 'turn.token')
    .map(({ data }) => data.text)
    .join('');

test('a session starts with an answer of the model, and its timings add up', async () => {
  const { id, workflowId, status, turn } = await start({ prompt: 'What is a session?' });
  assert.equal(workflowId, `session/acme/${id}`);
  assert.equal(status, 'open');
  assert.ok(turn?.usage && turn.timings);
  assert.equal(turn.status, 'completed');
  assert.equal(turn.number, 1);
  assert.ok(turn.answer.length > 0 && turn.usage.completionTokens > 0);
  assert.ok(Math.abs(turn.timings.model + turn.timings.platform - turn.timings.total) < 0.2);
  const read = await call<Session>(`/v1/sessions/${id}`, { token: acme });
  assert.deepEqual(read.body.turns, [turn]);
  await close(id);
});

test('the stream of a turn is started, tokens in order, completed; the tokens are the answer', async () => {
  const { id } = await start();
  const stream = await events(`/v1/sessions/${id}/turns`, {
    method: 'POST',
    token: acme,
    body: { prompt: 'Tell me more' },
  });
  assert.equal(stream[0]?.type, 'turn.started');
  assert.equal(stream.at(-1)?.type, 'turn.completed');
  const ids = stream.map((event) => event.id);
  assert.deepEqual(
    ids,
    [...ids].sort((a, b) => a - b),
  );
  assert.equal(new Set(ids).size, ids.length);
  assert.equal(textOf(stream), stream.at(-1)?.data.answer);
  await close(id);
});

test('a stream that was cut resumes after Last-Event-ID without a gap or a repetition', async () => {
  const { id } = await start({ prompt: 'What is a region?' });
  await close(id);
  const whole = await events(`/v1/sessions/${id}/events`, { token: acme });
  assert.equal(whole[0]?.type, 'session.opened');
  assert.equal(whole.at(-1)?.type, 'session.closed');
  assert.deepEqual(
    whole.map((event) => event.id),
    whole.map((_, index) => index + 1),
  );
  let left = 2;
  const path = `/v1/sessions/${id}/events`;
  const head = await events(path, { token: acme }, () => --left > 0);
  const resumed = await events(path, { token: acme, headers: { 'last-event-id': String(head.at(-1)?.id) } });
  assert.deepEqual([...head, ...resumed], whole);
  assert.deepEqual(await events(path, { token: acme, headers: { 'last-event-id': String(whole.length) } }), []);
});

test('a request repeated with its idempotency key is the same session and the same turn', async () => {
  const key = { 'idempotency-key': randomUUID() };
  const first = await start({ prompt: 'Once' }, key);
  const again = await start({ prompt: 'Once' }, key);
  assert.equal(again.id, first.id);
  assert.deepEqual(again.turn, first.turn);

  const turnKey = { 'idempotency-key': randomUUID() };
  const [one, two] = await Promise.all([ask(first.id, 'Twice', turnKey), ask(first.id, 'Twice', turnKey)]);
  assert.equal(one.status, 200);
  assert.deepEqual(two.body, one.body);
  assert.equal((await call<Session>(`/v1/sessions/${first.id}`, { token: acme })).body.turns?.length, 2);

  const other = await ask(first.id, 'Something else', turnKey);
  assert.equal(other.status, 422);
  await close(first.id);
  assert.deepEqual((await ask(first.id, 'Twice', turnKey)).body, one.body, 'also when the session is closed');
});

test('a cancelled turn ends as cancelled and keeps what it had said', { timeout: 60_000 }, async () => {
  const { id } = await start();
  let stream: SentEvent[] = [];
  {
    await using _frozen = await freezeModel();
    let cancelled: Promise<Answer> | undefined;
    stream = await events(
      `/v1/sessions/${id}/turns`,
      { method: 'POST', token: acme, body: { prompt: 'Tell a very long story' } },
      ({ type }) => {
        if (type === 'turn.started') cancelled = call(`/v1/sessions/${id}/cancel`, { method: 'POST', token: acme });
        return true;
      },
    );
    assert.equal((await cancelled)?.status, 200);
  }
  const end = stream.at(-1);
  assert.equal(end?.type, 'turn.cancelled');
  assert.equal(end.data.status, 'cancelled');
  assert.equal(end.data.answer, textOf(stream));
  const next = await ask(id, 'And now?');
  assert.equal(next.body.status, 'completed', 'the session goes on');
  await close(id);
});

test('a closed session refuses turns, and closing it again changes nothing', async () => {
  const { id } = await start();
  const closed = await close(id);
  assert.equal(closed.status, 200);
  assert.equal(closed.body.status, 'closed');
  assert.equal(closed.body.closeReason, 'client');
  assert.deepEqual((await close(id)).body, closed.body);
  const refused = await ask(id, 'Are you there?');
  assert.equal(refused.status, 409);
  assert.equal((refused.body as unknown as { type: string }).type, 'urn:somagent:problem:session-closed');
});

test('the list pages through every session once, newest first', async () => {
  const made = [];
  for (let index = 0; index < 3; index += 1) made.push((await start()).id);
  const seen: string[] = [];
  let cursor: string | null = '';
  do {
    const query: string = cursor === '' ? '' : `&cursor=${cursor}`;
    const { status, body } = await call<{ sessions: Session[]; nextCursor: string | null }>(
      `/v1/sessions?limit=2${query}`,
      { token: acme },
    );
    assert.equal(status, 200);
    assert.ok(body.sessions.length <= 2);
    seen.push(...body.sessions.map((session) => session.id));
    cursor = body.nextCursor;
  } while (cursor !== null && seen.length < 500);
  assert.deepEqual(seen.slice(0, 3), made.reverse());
  assert.equal(new Set(seen).size, seen.length);
  await Promise.all(made.map(close));
});

test('a tenant sees nothing of another: its sessions do not exist', async () => {
  const { id } = await start({ prompt: 'A secret of acme' });
  const path = `/v1/sessions/${id}`;
  const tries = [
    call(path, { token: globex }),
    call(`${path}/turns`, { method: 'POST', token: globex, body: { prompt: 'Tell me' } }),
    call(`${path}/events`, { token: globex }),
    call(`${path}/cancel`, { method: 'POST', token: globex }),
    call(path, { method: 'DELETE', token: globex }),
  ];
  for (const { status, body } of await Promise.all(tries)) {
    assert.equal(status, 404);
    assert.equal(body.type, 'urn:somagent:problem:not-found');
  }
  const list = await call<{ sessions: Session[] }>('/v1/sessions?limit=100', { token: globex });
  assert.equal(
    list.body.sessions.some((session) => session.id === id),
    false,
  );
  assert.equal((await call<Session>(path, { token: acme })).body.status, 'open', 'and it could not close it');
  await close(id);
});

test('what is not a request of the API is refused with a problem', async () => {
  const post = (body: unknown, headers: Record<string, string> = {}) =>
    call('/v1/sessions', { method: 'POST', token: acme, body, headers });
  const cases = [
    [await post({ prompt: '' }), 400, 'invalid-request'],
    [await post({ tenant: 'globex' }), 400, 'invalid-request'],
    [await post('{'), 400, 'invalid-request'],
    [await post({ prompt: 'x'.repeat(70_000) }), 413, 'body-too-large'],
    [await post('a=b', { 'content-type': 'application/x-www-form-urlencoded' }), 415, 'media-type'],
    [await call('/v1/nothing', { token: acme }), 404, 'not-found'],
    [await call(`/v1/sessions/${randomUUID()}`, { token: acme }), 404, 'not-found'],
  ] as const;
  for (const [{ status, headers, body }, expected, type] of cases) {
    assert.equal(status, expected, JSON.stringify(body));
    assert.equal(body.type, `urn:somagent:problem:${type}`);
    assert.equal(headers['content-type'], 'application/problem+json');
    assert.equal(body.requestId, headers['x-request-id']);
  }
});
