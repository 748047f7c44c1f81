import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from './log.ts';
import { runSteps } from './shutdown.ts';

test('runs every step in order, also after one that fails', async () => {
  const seen: string[] = [];
  const log = createLogger({ service: 'test', level: 'silent' });
  const failed = await runSteps(
    [
      { name: 'stop', run: () => seen.push('stop') },
      { name: 'drain', run: () => Promise.reject(new Error('stuck')) },
      { name: 'close', run: async () => seen.push('close') },
    ],
    log,
  );
  assert.deepEqual(seen, ['stop', 'close']);
  assert.deepEqual(failed, ['drain']);
});
