/** Analytics on the running platform: what a session used can be asked for, by its own tenant alone. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { request } from 'node:https';
import { after, before, describe, it } from 'node:test';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { decode, loginAs, logout, type Person } from './attacks/world.ts';
import { type Forwarded, forward } from './support/forward.ts';
import { authorityPem, call, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

interface Answer {
  readonly status: number;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: rows of every report are compared with literals
  readonly body: any;
}

/** A session as the gateway answers. */
interface Session {
  readonly id: string;
  readonly turn?: Turn;
}

const reports = ['latencies', 'usage', 'cost', 'verdicts', 'errors', 'success', 'forecast', 'anomalies'] as const;

describe('analytics', { timeout: 300_000 }, () => {
  let way: Forwarded;
  let ca: string;
  let member: Person;
  let stranger: Person;
  let operator: Person;

  before(async () => {
    [way, ca, member, stranger, operator] = await Promise.all([
      forward('local-services', 'analytics', 8443),
      authorityPem(),
      loginAs('acme-member-1'),
      loginAs('globex-auditor'),
      loginAs('operator-1'),
    ]);
  });
  after(async () => {
    await Promise.all([member, stranger, operator].map((one) => logout(one).catch(() => undefined)));
    await way[Symbol.asyncDispose]();
  });

  function ask(path: string, token?: string): Promise<Answer> {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    // The certificate has the name that pods know it by.
    const options = { ca, servername: 'analytics', headers, timeout: 30_000 };
    return new Promise((resolve, reject) => {
      const outgoing = request(`https://127.0.0.1:${way.port}/v1/analytics/${path}`, options, (incoming) => {
        let text = '';
        incoming.setEncoding('utf8').on('data', (piece: string) => {
          text += piece;
        });
        incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text, body: JSON.parse(text) }));
        incoming.on('error', reject);
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error(`${path}: nothing for 30 s`)));
      outgoing.on('error', reject).end();
    });
  }

  async function rows(path: string, token: string) {
    const { status, text, body } = await ask(path, token);
    assert.equal(status, 200, text);
    return body.rows;
  }

  it('refuses who is nobody and what is no token, whatever is asked', async () => {
    for (const report of reports) {
      for (const token of [undefined, 'no-token']) {
        const { status, text } = await ask(report, token);
        assert.equal(status, 401, `${report}: ${text}`);
        assert.doesNotMatch(text, /rows/, report);
      }
    }
  });

  it('refuses an agent, and a member who names another tenant', async () => {
    assert.equal((await ask('usage', await tokenOf('acme-agent'))).status, 403);
    const { status, body } = await ask('usage?tenant=globex', member.access);
    assert.deepEqual([status, body.type], [403, 'urn:somagent:problem:forbidden']);
  });

  it('counts the tokens of a turn and splits its time, for its own tenant alone', async () => {
    const subject = String(decode(member.access.split('.')[1]).sub);
    const from = new Date().toISOString();
    const range = () => `from=${from}&to=${new Date(Date.now() + 60_000).toISOString()}&step=86400`;
    const body = { prompt: `What is a tenant? Case ${randomUUID().slice(0, 8)}` };
    const opened = await call<Session>('/v1/sessions', { method: 'POST', token: member.access, body });
    assert.equal(opened.status, 201, JSON.stringify(opened.body));
    const { usage, timings, status } = opened.body.turn ?? assert.fail('the session began without its turn');
    assert.equal(status, 'completed');
    assert.ok(usage && timings, JSON.stringify(opened.body.turn));
    // This person did nothing else since `from`.
    const own = (found: readonly { group: string }[]) => found.find(({ group }) => group === subject);
    const used = await eventually('the turn is counted', 30, async () =>
      own(await rows(`usage?by=subject&${range()}`, member.access)),
    );
    assert.deepEqual(used, { ...used, requests: 1, ...usage });
    const latencies = await rows(`latencies?${range()}`, member.access);
    const [latency] = latencies;
    assert.ok(latencies.length === 1 && latency.turns >= 1, JSON.stringify(latencies));
    for (const part of ['platform', 'queue', 'firstToken', 'model', 'total'])
      assert.ok(Number.isFinite(latency[part].p99) && latency[part].p99 >= 0, `${part}: ${JSON.stringify(latency)}`);
    if (latency.turns === 1) {
      const [platform, model, total] = [latency.platform.p50, latency.model.p50, latency.total.p50];
      assert.ok(Math.abs(platform + model - total) < 1, `${platform} + ${model} is not ${total}`);
      assert.ok(Math.abs(total - timings.total) < 50, `${total} is not what the turn took: ${timings.total}`);
    }
    // Another tenant has nothing of it; who runs the platform sees both.
    assert.equal(own(await rows(`usage?by=subject&${range()}`, stranger.access)), undefined);
    assert.deepEqual(own(await rows(`usage?by=subject&${range()}`, operator.access)), used);
    for (const report of ['usage', 'cost', 'latencies']) {
      const { text } = await ask(`${report}?by=tenant&${range()}`, stranger.access);
      assert.doesNotMatch(text, /acme/, report);
    }
    await call(`/v1/sessions/${opened.body.id}`, { method: 'DELETE', token: member.access });
  });
});
