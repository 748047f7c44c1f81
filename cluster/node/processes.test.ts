import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isAlive, logTail, runningPrograms, startProgram, stopProcesses } from './processes.ts';

const linuxOnly = { skip: process.platform !== 'linux' };

test(
  'a program is found by what the kernel keeps of it, and stopped by pid and start time',
  linuxOnly,
  async (context) => {
    const state = mkdtempSync(join(tmpdir(), 'processes-'));
    context.after(() => rmSync(state, { recursive: true }));
    startProgram({ name: 'sleep', command: ['sleep', '60'], outside: true, digest: 'd1' }, state, []);
    for (let tries = 0; runningPrograms(state).length === 0 && tries < 100; tries += 1) await sleep(10);
    const [found] = runningPrograms(state);
    assert.ok(found);
    assert.equal(found.name, 'sleep');
    assert.equal(found.digest, 'd1');
    assert.deepEqual(runningPrograms(`${state}-other`), []);

    // The same pid with another start time is another process: it must survive.
    await stopProcesses([{ ...found, startTime: '1' }], 50);
    assert.equal(isAlive(found), true);
    await stopProcesses([found], 2000);
    assert.equal(isAlive(found), false);
    assert.deepEqual(runningPrograms(state), []);
  },
);

test('what a program says goes to its log', linuxOnly, async (context) => {
  const state = mkdtempSync(join(tmpdir(), 'processes-'));
  context.after(() => rmSync(state, { recursive: true }));
  startProgram({ name: 'echo', command: ['echo', 'port taken'], outside: true, digest: '' }, state, []);
  for (let tries = 0; logTail(state, 'echo') === '' && tries < 100; tries += 1) await sleep(10);
  assert.equal(logTail(state, 'echo'), 'port taken');
});
