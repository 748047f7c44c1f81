/** A pod of each service is killed while a session works: the session goes on, and no turn is lost or done twice. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { kubectl } from './support/kubectl.ts';
import { freezeModel } from './support/model.ts';
import { call, callPatiently, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

/** Where the pods of each service are. */
const services: Readonly<Record<string, readonly [namespace: string, selector: string]>> = {
  gateway: ['local-services', 'app.kubernetes.io/instance=gateway'],
  orchestrator: ['local-services', 'app.kubernetes.io/name=orchestrator,app.kubernetes.io/component!=migrate'],
  'model server': ['local-runtime', 'app.kubernetes.io/instance=slm,app.kubernetes.io/component=head'],
  'Temporal frontend': ['local-runtime', 'app.kubernetes.io/instance=temporal,app.kubernetes.io/component=frontend'],
  'Temporal history': ['local-runtime', 'app.kubernetes.io/instance=temporal,app.kubernetes.io/component=history'],
  'Temporal matching': ['local-runtime', 'app.kubernetes.io/instance=temporal,app.kubernetes.io/component=matching'],
  Keycloak: ['local-identity', 'app.kubernetes.io/name=keycloak,app.kubernetes.io/component!=realm'],
  'Postgres primary': ['local-data', 'role=primary'],
};

interface Session {
  readonly id: string;
  readonly status: string;
  readonly turns?: readonly Turn[];
}

/** Kills one pod of the service at once and returns its name. */
async function kill(service: string): Promise<string> {
  const [namespace, selector] = services[service] ?? assert.fail(`no such service: ${service}`);
  const pod = await kubectl('get', 'pods', '-n', namespace, '-l', selector, '-o', 'jsonpath={.items[0].metadata.name}');
  assert.notEqual(pod, '', `no pod of ${service} matches ${selector}`);
  await kubectl('delete', 'pod', '-n', namespace, pod, '--grace-period=0', '--force', '--wait=false');
  return pod;
}

let token = '';

/** Sends a turn as a good client does: with one idempotency key, again until it is answered. */
async function ask(session: string, prompt: string): Promise<{ turn: Turn; sent: number }> {
  const headers = { 'idempotency-key': randomUUID() };
  let sent = 0;
  const turn = await eventually(`an answer to "${prompt}"`, 150, async () => {
    sent += 1;
    const path = `/v1/sessions/${session}/turns`;
    const { status, body } = await call<Turn>(path, { method: 'POST', token, body: { prompt }, headers });
    if (status >= 500 || status === 429) return undefined;
    assert.equal(status, 200, JSON.stringify(body));
    return body.status === 'running' ? undefined : body;
  });
  return { turn, sent };
}

/** Asks, and kills a pod of the service while the model is frozen: the turn can't have ended before. */
async function askWhileKilled(session: string, prompt: string, service: string) {
  let answer: ReturnType<typeof ask>;
  let killed: { readonly at: number; readonly pod: string };
  {
    await using _frozen = await freezeModel();
    answer = ask(session, prompt);
    await sleep(500);
    killed = { at: performance.now(), pod: await kill(service) };
  }
  return { ...(await answer), ...killed };
}

describe('a session while pods die', () => {
  before(async () => {
    token = await tokenOf('acme-agent');
  });

  for (const service of Object.keys(services)) {
    it(`goes on when a pod of the ${service} is killed`, { timeout: 300_000 }, async (t) => {
      const headers = { 'idempotency-key': randomUUID() };
      const opening = { method: 'POST', token, body: {}, headers };
      const { body: session, status } = await callPatiently<Session>('/v1/sessions', opening);
      assert.equal(status, 201, JSON.stringify(session));
      await ask(session.id, 'What is a region?');
      const during = await askWhileKilled(session.id, 'What is a drill?', service);
      const after = await ask(session.id, 'What is a tenant?');
      const seconds = ((performance.now() - during.at) / 1000).toFixed(1);
      t.diagnostic(
        `${during.pod} killed; the next turn was answered ${seconds} s later, requests: ${during.sent} + ${after.sent}`,
      );
      assert.equal(during.turn.status, 'completed');
      assert.equal(after.turn.status, 'completed');
      const read = await callPatiently<Session>(`/v1/sessions/${session.id}`, { token });
      assert.equal(read.status, 200, JSON.stringify(read.body));
      assert.deepEqual(
        read.body.turns?.map(({ number, prompt }) => [number, prompt]),
        [
          [1, 'What is a region?'],
          [2, 'What is a drill?'],
          [3, 'What is a tenant?'],
        ],
      );
      await kubectl('wait', '-A', '--for=condition=Available', 'deployment', '--all', '--timeout=180s');
      await kubectl('rollout', 'status', '-n', 'local-data', 'statefulset/postgres', '--timeout=120s');
      const closed = await callPatiently(`/v1/sessions/${session.id}`, { method: 'DELETE', token });
      assert.ok(closed.status < 300, JSON.stringify(closed));
    });
  }
});
