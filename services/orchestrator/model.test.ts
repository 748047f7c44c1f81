import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { isPermanent, isTooLong, keepingConnections, messagesOf, newerHalf } from './model.ts';

test('the conversation is persona, earlier turns, prompt', () => {
  const request = { persona: 'Be brief.', history: [{ prompt: 'a?', answer: 'a.' }], prompt: 'b?' };
  assert.deepEqual(messagesOf(request), [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'a?' },
    { role: 'assistant', content: 'a.' },
    { role: 'user', content: 'b?' },
  ]);
  assert.deepEqual(messagesOf({ persona: undefined, history: [], prompt: 'b?' }), [{ role: 'user', content: 'b?' }]);
});

for (const [status, permanent] of [
  [400, true],
  [401, true],
  [404, true],
  [422, true],
  [408, false],
  [429, false],
  [500, false],
  [503, false],
] as const) {
  test(`an answer of ${status} is ${permanent ? 'final' : 'worth a retry'}`, () => {
    assert.equal(isPermanent(new OpenAI.APIError(status, {}, 'refused', new Headers())), permanent);
  });
}

test('a lost connection is worth a retry', () => {
  assert.equal(isPermanent(new OpenAI.APIConnectionError({})), false);
});

test('a conversation that is too long is told apart, and its older half goes first', () => {
  const body = { code: 'context_length_exceeded', message: 'too long' };
  assert.equal(isTooLong(new OpenAI.APIError(400, body, 'too long', new Headers())), true);
  assert.equal(isTooLong(new OpenAI.APIError(400, { code: 'other' }, 'no', new Headers())), false);
  assert.deepEqual(newerHalf([1, 2, 3]), [3]);
  assert.deepEqual(newerHalf([1, 2]), [2]);
  assert.deepEqual(newerHalf([1]), []);
});

test('a connection survives an answer that is left before its last byte, and an aborted one does not wait', async () => {
  let connections = 0;
  const server = createServer(async (request, response) => {
    response.write('first');
    await sleep(request.url === '/long' ? 60_000 : 5, undefined, { ref: false });
    response.end('last');
  }).on('connection', () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const keeping = keepingConnections(fetch);
  for (let answer = 0; answer < 3; answer += 1) {
    const { body } = await keeping(address);
    const reader = body?.getReader();
    await reader?.read();
    await reader?.cancel();
    await sleep(30);
  }
  assert.equal(connections, 1);
  const stop = new AbortController();
  const { body } = await keeping(`${address}/long`, { signal: stop.signal });
  const reader = body?.getReader();
  await reader?.read();
  stop.abort();
  await assert.rejects(async () => reader?.read(), { name: 'AbortError' });
  server.closeAllConnections();
  server.close();
});
