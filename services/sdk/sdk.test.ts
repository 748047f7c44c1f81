/** The SDK against a real server on loopback that loses answers, asks to wait and breaks streams. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { dataOf, gatewayClient, SomaError } from './client.ts';
import { generate, generatedFolder } from './generate.ts';
import { type SessionEvent, sessionEvents } from './stream.ts';

test('the generated types are those of the declared routes', { timeout: 60_000 }, async () => {
  for (const [name, text] of await generate()) {
    const written = readFileSync(join(generatedFolder, name), 'utf8');
    assert.ok(written === text, `${name} is not current: node services/sdk/generate.ts`);
  }
});

type Answer = (request: IncomingMessage, response: ServerResponse) => void;
const servers: ReturnType<typeof createServer>[] = [];
after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

/** A server that gives these answers one after the other. */
async function serverOf(...answers: readonly Answer[]) {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    const answer = answers[seen.length - 1];
    if (answer === undefined) response.writeHead(500).end('{}');
    else answer(request, response);
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  const options = { url: `http://127.0.0.1:${address.port}`, token: () => 'a-token', pause: 1, longestPause: 30 };
  return { seen, options };
}

const session = { id: '0190a6d3-1c2b-4d3e-8f4a-5b6c7d8e9f00', status: 'open' };
const answer =
  (status: number, body: unknown, headers: Record<string, string> = {}): Answer =>
  (_, response) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
const lost: Answer = (request) => request.socket.destroy();

test('a lost answer and a server that asks to wait are tried again under the same key', async () => {
  const { seen, options } = await serverOf(lost, answer(503, {}, { 'retry-after': '0' }), answer(201, session));
  const made = dataOf(await gatewayClient(options).POST('/v1/sessions', { body: { prompt: 'Hello' } }));
  assert.equal(made.id, session.id);
  const keys = seen.map(({ headers }) => headers['idempotency-key']);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  assert.match(String(keys[0]), /^[0-9a-f-]{36}$/);
  assert.deepEqual(new Set(seen.map(({ headers }) => headers.authorization)), new Set(['Bearer a-token']));
});

test('a key of the caller is kept, and tries end', async () => {
  const away = answer(503, { type: 'urn:somagent:problem:unavailable', detail: 'try again' });
  const { seen, options } = await serverOf(away, away, away, away, away);
  const headers = { 'idempotency-key': 'mine' };
  const call = gatewayClient({ ...options, attempts: 3 }).POST('/v1/sessions', {
    body: {},
    params: { header: headers },
  });
  await assert.rejects(async () => dataOf(await call), { name: 'SomaError', type: 'unavailable', status: 503 });
  assert.deepEqual(
    seen.map((request) => request.headers['idempotency-key']),
    ['mine', 'mine', 'mine'],
  );
});

test('what is refused is not tried again and says which request it was', async () => {
  const problem = { type: 'urn:somagent:problem:forbidden', detail: 'no role has it' };
  const { seen, options } = await serverOf(answer(403, problem, { 'x-request-id': 'r-1' }));
  const call = gatewayClient(options).GET('/v1/sessions/{id}', { params: { path: { id: session.id } } });
  await assert.rejects(
    async () => dataOf(await call),
    (error: unknown) => {
      assert.ok(error instanceof SomaError);
      assert.deepEqual([error.type, error.status, error.requestId], ['forbidden', 403, 'r-1']);
      return true;
    },
  );
  assert.equal(seen.length, 1);
});

const stream =
  (events: readonly [number, string, object][], end: 'broken' | 'ended'): Answer =>
  (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const [id, type, data] of events) {
      response.write(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
    }
    if (end === 'ended') response.end('event: reconnect\ndata: {}\n\n');
    else setImmediate(() => request.socket.destroy());
  };

test('a stream goes on after the last event, without a gap or a repetition, until the session closes', async () => {
  const { seen, options } = await serverOf(
    stream(
      [
        [1, 'session.opened', {}],
        [2, 'turn.token', { text: 'a' }],
      ],
      'broken',
    ),
    stream(
      [
        [2, 'turn.token', { text: 'a' }],
        [3, 'turn.token', { text: 'b' }],
        [4, 'session.closed', {}],
      ],
      'ended',
    ),
  );
  const events: SessionEvent[] = [];
  for await (const event of sessionEvents(options, { sessionId: session.id })) events.push(event);
  assert.deepEqual(
    events.map(({ id, type }) => [id, type]),
    [
      [1, 'session.opened'],
      [2, 'turn.token'],
      [3, 'turn.token'],
      [4, 'session.closed'],
    ],
  );
  assert.deepEqual(
    seen.map(({ headers }) => headers['last-event-id']),
    ['0', '2'],
  );
});

test('a stream that is refused is an error', async () => {
  const { options } = await serverOf(answer(404, { type: 'urn:somagent:problem:not-found' }));
  const events = sessionEvents(options, { sessionId: session.id });
  await assert.rejects(events.next(), { name: 'SomaError', type: 'not-found' });
});
