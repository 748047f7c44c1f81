/**
 * Attacks on tokens and requests against the running gateway: each gets its exact status and problem type, and nothing
 * secret that was presented occurs in the log of any pod.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { apiKeys } from './attacks/api-keys.ts';
import { type Attack, bearer } from './attacks/attack.ts';
import { wrongClaims, wrongTenants } from './attacks/issued.ts';
import { budgetAttacks, chatAttacks } from './attacks/openai.ts';
import { bodies, overrides, paths, smuggling, tooMuchHeader, values } from './attacks/requests.ts';
import { forgedTokens, misplacedTokens, strayTokens } from './attacks/tokens.ts';
import { bytesOf, exchange, type Victim } from './attacks/wire.ts';
import { createWorld, encode, loginAs, logout, type World } from './attacks/world.ts';
import { forward } from './support/forward.ts';
import { platformLogs } from './support/logs.ts';
import { call, events, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const groups: Readonly<Record<string, readonly Attack[]>> = {
  'a forged token': forgedTokens,
  'a token that was made for something else': strayTokens,
  'a token where none belongs': misplacedTokens,
  'a genuine token that says something wrong': wrongClaims,
  'a genuine token of no tenant': wrongTenants,
  'an API key': apiKeys,
  'a request of two readings': smuggling,
  'a header': [...tooMuchHeader, ...overrides],
  'a body': bodies,
  'a path': paths,
  'a value': values,
  'a request of a model': chatAttacks,
  'a budget': budgetAttacks,
};

let world: World;
let startedAt = '';
/** Tokens and keys that were presented: none of them may be found in a log. */
const presented = new Set<string>();

/** Keeps what an attack shows of secrets: every token and key, and each signature by itself. */
function remember(text: string): void {
  for (const word of text.split(/[^\w.-]+/)) {
    const [, , signature = ''] = word.split('.');
    if (signature.length > 40) presented.add(word).add(signature);
    if (word.startsWith('soma_') && word.length > 40) presented.add(word);
  }
}

/** A server that is attacked, and a route of its own that needs no more than a good token. */
interface Service extends Victim {
  readonly target: string;
}

const gateway = (): Service => ({ origin: world.gateway, ca: world.ca, target: '/v1/sessions' });

async function attack({ name, status, problem, openAi, request }: Attack, service = gateway()): Promise<void> {
  const wire = { target: service.target, ...(await request(world)) };
  remember(bytesOf(wire).toString('latin1'));
  const answer = await exchange(service, wire);
  assert.equal(answer.status, status, `${name}: ${answer.body}`);
  if (problem === null) return;
  const form = openAi ? 'application/json' : 'application/problem+json';
  assert.equal(answer.headers.get('content-type'), form, name);
  if (wire.method === 'HEAD') return;
  const body = JSON.parse(answer.body) as { readonly type?: string; readonly error?: { readonly code: string } };
  const said = openAi ? body.error?.code : body.type;
  assert.equal(said, openAi ? problem : `urn:somagent:problem:${problem}`, `${name}: ${answer.body}`);
  assert.equal(answer.headers.get('access-control-allow-origin'), undefined);
  for (const secret of presented)
    assert.equal(answer.body.includes(secret), false, `${name}: the answer repeats a secret`);
}

/** A good request is answered: what is refused below is refused for what is wrong with it. */
async function goodPasses(service = gateway()): Promise<void> {
  for (const token of [world.good, world.issue({})]) {
    const answer = await exchange(service, { target: service.target, headers: [bearer(token)] });
    assert.equal(answer.status, 200, answer.body);
  }
}

describe('attacks', { timeout: 900_000 }, () => {
  before(async () => {
    startedAt = new Date().toISOString();
    world = await createWorld();
  });
  after(() => world?.dispose());

  it('are at least sixty, each with a name of its own', () => {
    const names = Object.values(groups).flatMap((attacks) => attacks.map(({ name }) => name));
    assert.equal(new Set(names).size, names.length);
    assert.ok(names.length >= 60, `${names.length} attacks`);
  });

  it('stand against a good request, which passes', () => goodPasses());

  it('stand against genuine tokens within the clock skew, which pass', async () => {
    const now = Math.floor(Date.now() / 1000);
    for (const claims of [{ exp: now - 2 }, { nbf: now + 3 }, { typ: undefined }]) {
      const { status } = await call('/v1/sessions', { token: world.issue(claims) });
      assert.equal(status, 200, JSON.stringify(claims));
    }
  });

  for (const [group, attacks] of Object.entries(groups)) {
    describe(group, () => {
      for (const one of attacks) it(one.name, () => attack(one));
    });
  }

  for (const name of ['identity', 'audit']) {
    it(`all of them with a token, at ${name}`, { timeout: 300_000 }, async () => {
      await using port = await forward('local-services', name, 8443);
      const servername = `${name}.local-services.svc`;
      const service = { origin: `https://127.0.0.1:${port.port}`, servername, ca: world.ca, target: '/openapi.json' };
      await goodPasses(service);
      for (const group of [forgedTokens, strayTokens, misplacedTokens, wrongClaims, wrongTenants]) {
        for (const one of group) await attack(one, service);
      }
      await goodPasses(service);
    });
  }

  describe('an act across tenants', () => {
    it('the same idempotency key makes different sessions for two tenants and two subjects', async () => {
      const headers = { 'idempotency-key': `attack-${randomUUID()}` };
      const guide = await tokenOf('acme-persona-guide');
      const made = [];
      for (const token of [world.good, world.other, guide, world.good]) {
        const { status, body } = await call<{ id: string }>('/v1/sessions', {
          method: 'POST',
          token,
          headers,
          body: {},
        });
        assert.equal(status, 201, JSON.stringify(body));
        made.push({ token, id: body.id });
      }
      const [acme, globex, persona, again] = made;
      assert.equal(new Set([acme?.id, globex?.id, persona?.id]).size, 3);
      assert.equal(again?.id, acme?.id);
      for (const { id, token } of made) await call(`/v1/sessions/${id}`, { method: 'DELETE', token });
    });

    it('a cursor made from a session of another tenant shows none of its sessions', async () => {
      const cursor = encode(`${new Date(Date.now() + 60_000).toISOString()} ${world.otherSession}`);
      const { status, body } = await call<{ sessions: { id: string; workflowId: string }[] }>(
        `/v1/sessions?limit=100&cursor=${cursor}`,
        { token: world.good },
      );
      assert.equal(status, 200);
      assert.ok(body.sessions.some(({ id }) => id === world.session));
      assert.equal(
        body.sessions.every(({ workflowId }) => workflowId.startsWith('session/acme/')),
        true,
      );
    });

    it('a session that another tenant tried to close is still open', async () => {
      const { body } = await call(`/v1/sessions/${world.otherSession}`, { token: world.other });
      assert.equal(body.status, 'open');
      const { body: own } = await call(`/v1/sessions/${world.session}`, { token: world.good });
      assert.equal(own.status, 'open');
    });
  });

  describe('an injection', () => {
    it('a question that looks like an event stays a question', { timeout: 120_000 }, async () => {
      const prompt = 'What is a region?\n\nevent: session.closed\nid: 999999\ndata: {"injected":true}\n\n';
      const token = world.good;
      const path = `/v1/sessions/${world.session}/turns`;
      const seen = await events(path, { method: 'POST', token, body: { prompt } });
      assert.equal(
        seen.some(({ type, id }) => type === 'session.closed' || id === 999_999),
        false,
      );
      assert.equal(seen.at(-1)?.type, 'turn.completed');
      assert.equal(seen.at(-1)?.data.prompt, prompt.trim());
    });

    it('an id of a request that a client names is not taken, nor is its trace split', async () => {
      const headers = [
        ['Authorization', `Bearer ${world.good}`],
        ['X-Request-Id', 'mine'],
      ] as const;
      const answer = await exchange(gateway(), { headers });
      assert.match(answer.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/);
    });

    it('a foreign host is not repeated', async () => {
      const head = `GET /v1/nothing HTTP/1.1\r\nHost: attacker.example\r\nConnection: close\r\nAuthorization: Bearer ${world.good}`;
      const answer = await exchange(gateway(), { bytes: `${head}\r\n\r\n` });
      assert.equal(answer.status, 404);
      assert.equal(answer.body.includes('attacker'), false);
    });
  });

  describe('a replay', () => {
    it('a token is refused within a second after its person has signed out', { timeout: 60_000 }, async (t) => {
      const person = await loginAs('acme-member-2');
      remember(`${person.access} ${person.id} ${person.refresh}`);
      assert.equal((await call('/v1/sessions', { token: person.access })).status, 200);
      await logout(person);
      const since = performance.now();
      const answer = await eventually('the token is refused', 10, async () => {
        const got = await call('/v1/sessions', { token: person.access });
        return got.status === 200 ? undefined : got;
      });
      const milliseconds = performance.now() - since;
      t.diagnostic(`refused ${milliseconds.toFixed(0)} ms after the logout`);
      assert.deepEqual([answer.status, answer.body.type], [401, 'urn:somagent:problem:token-revoked']);
      assert.ok(milliseconds <= 1000, `only after ${milliseconds.toFixed(0)} ms`);
    });
  });

  it('leave a good request as good as before', () => goodPasses());

  it('leave no secret in any log', { timeout: 120_000 }, async (t) => {
    const marker = randomUUID();
    await call(`/v1/nothing/${marker}`, { token: world.good });
    remember([world.good, world.other, world.foreign, world.untenanted, world.master].join(' '));
    remember(Object.values(world.person).join(' '));
    const logs = await eventually('the last request is in a log', 30, async () => {
      const read = await platformLogs(startedAt);
      return read.some(({ text }) => text.includes(marker)) ? read : undefined;
    });
    const found = logs.flatMap(({ pod, text }) =>
      [...presented].filter((secret) => text.includes(secret)).map((secret) => `${pod}: ${secret.slice(0, 12)}...`),
    );
    t.diagnostic(
      `${presented.size} secrets, ${logs.length} pods, ${logs.reduce((sum, { text }) => sum + text.length, 0)} characters of log`,
    );
    assert.deepEqual(found, []);
    assert.ok(presented.size >= 60);
  });
});
