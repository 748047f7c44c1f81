/**
 * Faults while load runs. Keycloak is away: whoever has a token goes on working, because its keys are known.
 * SOMA_KEYCLOAK_OUTAGE_SECONDS makes the outage longer (300 for five minutes; the token of the test lives 900 s).
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { kubectl } from './support/kubectl.ts';
import { call, tokenOf, tokenRequester } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const outageSeconds = Number(process.env.SOMA_KEYCLOAK_OUTAGE_SECONDS ?? 30);
const namespace = 'local-identity';
/** Requests of the load in a second, a turn every few seconds among them. */
const perSecond = 5;
const turnEvery = 4 * perSecond;

/** Takes Keycloak away until the result is disposed of. */
async function withoutKeycloak(): Promise<AsyncDisposable> {
  const scale = (replicas: string) =>
    kubectl('scale', '-n', namespace, 'deployment/keycloak', `--replicas=${replicas}`);
  const replicas = await kubectl('get', '-n', namespace, 'deployment/keycloak', '-o', 'jsonpath={.spec.replicas}');
  await scale('0');
  const selector = 'app.kubernetes.io/name=keycloak,app.kubernetes.io/component=server';
  await kubectl('wait', '-n', namespace, '--for=delete', 'pod', '-l', selector, '--timeout=120s');
  return {
    async [Symbol.asyncDispose]() {
      await scale(replicas);
      await kubectl('wait', '-n', namespace, '--for=condition=Available', 'deployment/keycloak', '--timeout=300s');
    },
  };
}

interface Load {
  readonly statuses: ReadonlyMap<number, number>;
  readonly turns: number;
  /** Time of the 95th of 100 requests, milliseconds. */
  readonly p95: number;
}

/** Lists, reads and asks in a session for a while. */
async function load(token: string, session: string, seconds: number): Promise<Load> {
  const statuses = new Map<number, number>();
  const times: number[] = [];
  let turns = 0;
  const until = performance.now() + seconds * 1000;
  for (let number = 0; performance.now() < until; number += 1) {
    const started = performance.now();
    const isTurn = number % turnEvery === 0;
    const { status } = isTurn
      ? await ask(token, session)
      : await call(number % 2 ? '/v1/sessions' : `/v1/sessions/${session}`, { token });
    if (isTurn) turns += 1;
    else times.push(performance.now() - started);
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    await sleep(Math.max(0, 1000 / perSecond - (performance.now() - started)));
  }
  times.sort((left, right) => left - right);
  return { statuses, turns, p95: times[Math.floor(times.length * 0.95)] ?? 0 };
}

const ask = (token: string, session: string) =>
  call<Turn>(`/v1/sessions/${session}/turns`, {
    method: 'POST',
    token,
    body: { prompt: 'What is a drill?' },
    headers: { 'idempotency-key': randomUUID() },
  });

describe('Keycloak away', () => {
  it('costs those who have a token nothing, and others nothing but a wait', {
    timeout: (outageSeconds + 600) * 1000,
  }, async (t) => {
    const token = await tokenOf('lasting-agent');
    const signIn = await tokenRequester('lasting-agent');
    const opened = await call<{ id: string }>('/v1/sessions', { method: 'POST', token, body: {} });
    assert.equal(opened.status, 201, JSON.stringify(opened.body));
    const session = opened.body.id;
    {
      await using _away = await withoutKeycloak();
      // The fault is real: nobody new comes in.
      await assert.rejects(
        signIn().then(({ status }) => assert.ok(status < 500, `status ${status}`)),
        /ECONNREFUSED|ECONNRESET|EHOSTUNREACH|socket hang up|status 50|nothing for|TLS/,
      );
      const { statuses, turns, p95 } = await load(token, session, outageSeconds);
      const total = [...statuses.values()].reduce((sum, count) => sum + count, 0);
      t.diagnostic(`${outageSeconds} s without Keycloak: ${total} requests, ${turns} turns, p95 ${p95.toFixed(1)} ms`);
      assert.deepEqual([...statuses.keys()], [200], JSON.stringify([...statuses]));
      assert.ok(turns >= 1 && total >= outageSeconds);
    }
    const fresh = await eventually('a token after the outage', 60, async () => {
      const { status, text } = await signIn();
      return status === 200 ? String(JSON.parse(text).access_token) : undefined;
    });
    assert.equal((await call(`/v1/sessions/${session}`, { token: fresh })).status, 200);
    assert.equal((await call(`/v1/sessions/${session}`, { method: 'DELETE', token })).status, 200);
  });
});
