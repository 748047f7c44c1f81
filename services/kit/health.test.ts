import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HealthServer } from './health.ts';

test('is ready only when every check passes, and says which one does not', async () => {
  let postgres: Error | undefined;
  const health = new HealthServer({
    port: 1,
    timeout: 20,
    checks: {
      postgres: async () => {
        if (postgres) throw postgres;
      },
    },
  });
  assert.deepEqual(await health.readiness(), { ready: true, checks: { postgres: 'ok' } });
  postgres = new Error('connection refused');
  assert.deepEqual(await health.readiness(), { ready: false, checks: { postgres: 'connection refused' } });
});

test('shows what a dependency that answers has to say', async () => {
  const health = new HealthServer({ port: 1, checks: { policy: async () => 'revision abc, drift: not signed' } });
  assert.deepEqual(await health.readiness(), {
    ready: true,
    checks: { policy: 'ok: revision abc, drift: not signed' },
  });
});

test('a check that hangs counts as a failure after its time', async () => {
  const health = new HealthServer({ port: 1, timeout: 10, checks: { temporal: () => new Promise(() => {}) } });
  assert.deepEqual(await health.readiness(), { ready: false, checks: { temporal: 'no answer within 10 ms' } });
});

test('is not ready once it drains', async () => {
  const health = new HealthServer({ port: 1, checks: {} });
  assert.equal((await health.readiness()).ready, true);
  health.drain();
  assert.deepEqual(await health.readiness(), { ready: false, checks: { process: 'is shutting down' } });
});
