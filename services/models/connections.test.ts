import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { keepingConnections } from './connections.ts';

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
