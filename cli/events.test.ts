import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseEvents, type ServerEvent } from './events.ts';

async function* chunksOf(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    yield bytes.subarray(at, at + size);
    at += size;
  }
  yield bytes.subarray(at);
}

async function read(text: string, sizes: readonly number[] = []): Promise<ServerEvent[]> {
  const events: ServerEvent[] = [];
  for await (const event of parseEvents(chunksOf(new TextEncoder().encode(text), sizes))) events.push(event);
  return events;
}

describe('parseEvents', () => {
  it('reads id, event and data of several lines', async () => {
    assert.deepEqual(await read('id: 7\nevent: turn.token\ndata: {"text":\ndata: "a"}\n\n'), [
      { id: '7', event: 'turn.token', data: '{"text":\n"a"}' },
    ]);
  });

  it('drops heartbeats and an event that was cut off', async () => {
    assert.deepEqual(await read(': alive\n\ndata: whole\n\ndata: half'), [
      { id: undefined, event: 'message', data: 'whole' },
    ]);
  });

  it('reads the same events however the bytes are cut, inside a character or a line end too', async () => {
    const text = 'id: 1\r\nevent: turn.token\r\ndata: {"text":"Grüße, 世界 🌍"}\r\n\r\nid: 2\ndata: x\n\n';
    const whole = await read(text);
    assert.equal(whole.length, 2);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 9 })), async (sizes) => {
        assert.deepEqual(await read(text, sizes), whole);
      }),
    );
  });
});
