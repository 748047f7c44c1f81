/** Memory on the running platform: what was said is found by meaning, by whom it belongs to, until it is forgotten. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { request } from 'node:https';
import { after, before, describe, it } from 'node:test';
import { loginAs, logout, type Person } from './attacks/world.ts';
import { type Forwarded, forward } from './support/forward.ts';
import { kubectl } from './support/kubectl.ts';
import { authorityPem, call, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape are compared with literals
  readonly body: any;
}

describe('memory', { timeout: 300_000 }, () => {
  let way: Forwarded;
  let ca: string;
  let member: Person;
  let colleague: Person;

  before(async () => {
    [way, ca, member, colleague] = await Promise.all([
      forward('local-services', 'memory-gateway', 8443),
      authorityPem(),
      loginAs('acme-member-1'),
      loginAs('acme-member-2'),
    ]);
  });
  after(async () => {
    await Promise.all([member, colleague].map((one) => logout(one).catch(() => undefined)));
    await way[Symbol.asyncDispose]();
  });

  function ask(token: string, method: string, path: string, content?: object): Promise<Answer> {
    const text = content === undefined ? undefined : JSON.stringify(content);
    const headers = {
      authorization: `Bearer ${token}`,
      ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    };
    // The certificate has the name that pods know it by.
    const options = { method, ca, servername: 'memory-gateway', headers, timeout: 30_000 };
    return new Promise((resolve, reject) => {
      const outgoing = request(`https://127.0.0.1:${way.port}${path}`, options, (incoming) => {
        let answer = '';
        incoming.setEncoding('utf8').on('data', (piece: string) => {
          answer += piece;
        });
        incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, body: JSON.parse(answer) }));
        incoming.on('error', reject);
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error(`${path}: nothing for 30 s`)));
      outgoing.on('error', reject).end(text);
    });
  }
  const recall = (token: string, query: string, more: object = {}) =>
    ask(token, 'POST', '/v1/memories/recall', { query, deadlineMs: 5000, ...more });
  const idsOf = ({ body }: Answer): readonly string[] => body.memories.map(({ id }: { id: string }) => id);

  it('finds by meaning what was stored, within 10 s, for its owner alone, and forgets it with a proof', async () => {
    const name = `Bruno-${randomUUID().slice(0, 8)}`;
    const stored = await ask(member.access, 'POST', '/v1/memories', {
      text: `The hound of the family is called ${name}`,
      kind: 'semantic',
    });
    assert.equal(stored.status, 201, JSON.stringify(stored.body));
    const { id } = stored.body.memory;
    await eventually('found by vectors', 10, async () => {
      const answer = await recall(member.access, 'What is the name of our dog?');
      const found = answer.body.memories?.find((memory: { id: string }) => memory.id === id);
      return answer.body.degraded === null && found?.rank.vectors !== null && found !== undefined ? found : undefined;
    });
    for (const other of [colleague.access, await tokenOf('globex-agent')]) {
      assert.ok(!idsOf(await recall(other, `Who is ${name}?`)).includes(id));
      assert.equal((await ask(other, 'GET', `/v1/memories/${id}`)).status, 404);
    }
    const gone = await ask(member.access, 'DELETE', `/v1/memories/${id}`);
    assert.deepEqual([gone.status, gone.body.forgotten, gone.body.proven], [200, 1, true], JSON.stringify(gone.body));
    assert.ok(!idsOf(await recall(member.access, `Who is ${name}?`)).includes(id));
  });

  it('remembers a turn of a session, and recalls it for the agent that asked', async () => {
    const token = await tokenOf('acme-agent');
    const prompt = `What is a session? Case ${randomUUID().slice(0, 8)}`;
    const opened = await call('/v1/sessions', { method: 'POST', token, body: { prompt } });
    assert.equal(opened.status, 201, JSON.stringify(opened.body));
    await eventually('the turn is remembered', 60, async () => {
      const { body } = await recall(token, prompt);
      return body.memories.find(({ text }: { text: string }) => text.startsWith(`Asked: ${prompt}`));
    });
  });

  it('goes on by words while the vector store restarts, says so, and catches up', async () => {
    const word = `zanzibar${randomUUID().slice(0, 6)}`;
    await kubectl('-n', 'local-data', 'delete', 'pod', '-l', 'app.kubernetes.io/name=qdrant', '--wait=false');
    const stored = await ask(member.access, 'POST', '/v1/memories', {
      text: `The ship sails to ${word}`,
      kind: 'semantic',
    });
    const { id } = stored.body.memory;
    assert.ok(idsOf(await recall(member.access, word)).includes(id), 'by its word, at once');
    await eventually('found by vectors again', 120, async () => {
      const { body } = await recall(member.access, word);
      const found = body.memories.find((memory: { id: string }) => memory.id === id);
      return body.degraded === null && found?.rank.vectors ? found : undefined;
    });
    await ask(member.access, 'DELETE', `/v1/memories/${id}`);
  });
});
