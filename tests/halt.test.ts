/** The kill switch, as a runbook: pulled, it stops the agent work of a tenant in 5 s and keeps it; undone, it goes on. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { loginAs, logout, type Person } from './attacks/world.ts';
import { authorityPem, call, events, type SentEvent, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';
import { type Api, apiOf, send } from './tenancy/platform.ts';

const prompt = 'Tell a long story about sessions, personas, capsules and tools, step by step, and do not stop early.';

let operator: Person;
let accounts: Api;
before(async () => {
  setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  accounts = await apiOf('SOMA_ACCOUNTS_URL', 'accountsUrl');
  operator = await loginAs('operator-1');
});
after(async () => {
  if (operator === undefined) return;
  for (const path of ['/v1/tenants/acme/resume', '/v1/control/resume']) await pull(path);
  await logout(operator);
});

const pull = (path: string) =>
  send(accounts, operator.access, { method: 'POST', path, headers: {}, body: { reason: 'test of the runbook' } });

const opened = async (client: string) => {
  const token = await tokenOf(client);
  const { status, body } = await call<{ id: string }>('/v1/sessions', { method: 'POST', token, body: {} });
  assert.equal(status, 201);
  return { token, id: body.id };
};

/** Runs turns one after the other until it is told to stop; each event with the time at which it came. */
function busy({ token, id }: { readonly token: string; readonly id: string }) {
  const seen: { readonly event: SentEvent; readonly at: number }[] = [];
  const statuses: number[] = [];
  let on = true;
  const running = (async () => {
    while (on) {
      await events(`/v1/sessions/${id}/turns`, { method: 'POST', token, body: { prompt } }, (event) => {
        seen.push({ event, at: performance.now() });
        return on;
      }).catch((error: unknown) => {
        statuses.push(Number(/status (\d+)/.exec(String(error))?.[1] ?? 0));
        return sleep(200);
      });
    }
  })();
  return {
    seen,
    statuses,
    stop: () => {
      on = false;
      return running;
    },
  };
}

const tokensAfter = (work: ReturnType<typeof busy>, time: number) =>
  work.seen.filter(({ event, at }) => event.type === 'turn.token' && at > time).length;

describe('halt and resume', { timeout: 300_000 }, () => {
  for (const [what, halt, resume, others] of [
    ['a tenant', '/v1/tenants/acme/halt', '/v1/tenants/acme/resume', true],
    ['everything', '/v1/control/halt', '/v1/control/resume', false],
  ] as const) {
    test(`${what}: no token after 5 s, new work is refused, state stays, and it goes on when undone`, async (context) => {
      const [mine, theirs] = [await opened('acme-agent'), await opened('globex-agent')];
      const [work, other] = [busy(mine), busy(theirs)];
      try {
        const flows = (each: typeof work) => async () =>
          each.seen.some(({ event }) => event.type === 'turn.token') || undefined;
        await eventually('both tenants work', 60, flows(work));
        await eventually('both tenants work', 60, flows(other));
        assert.equal((await pull(halt)).status, 200);
        const pulled = performance.now();
        await sleep(5000);
        const quiet = performance.now();
        await sleep(4000);
        assert.equal(tokensAfter(work, quiet), 0, 'work of the halted tenant goes on');
        const last = work.seen.filter(({ event, at }) => event.type === 'turn.token' && at > pulled).at(-1);
        context.diagnostic(`the last token came ${Math.round((last?.at ?? pulled) - pulled)} ms after the halt`);
        assert.equal(tokensAfter(other, quiet) > 0, others, 'work of the other tenant');
        const refused = await call('/v1/sessions', { method: 'POST', token: mine.token, body: {} });
        assert.equal(refused.status, 423, JSON.stringify(refused.body));
        const kept = await call<{ status: string }>(`/v1/sessions/${mine.id}`, { token: mine.token });
        assert.deepEqual([kept.status, kept.body.status], [200, 'open']);

        assert.equal((await pull(resume)).status, 200);
        const resumed = performance.now();
        await eventually('the work goes on', 30, async () => tokensAfter(work, resumed) > 0 || undefined);
        await eventually('a turn ends', 90, async () => {
          const { body } = await call<{ turns: { status: string }[] }>(`/v1/sessions/${mine.id}`, {
            token: mine.token,
          });
          assert.ok(
            body.turns.every(({ status }) => status !== 'failed'),
            'a turn failed because of the halt',
          );
          return body.turns.some(({ status }) => status === 'completed') || undefined;
        });
      } finally {
        await pull(resume);
        await Promise.all([work.stop(), other.stop()]);
      }
    });
  }

  test('only an operator may pull it', async () => {
    const admin = await loginAs('acme-admin-1');
    try {
      for (const path of ['/v1/tenants/acme/halt', '/v1/tenants/globex/halt', '/v1/control/halt']) {
        const answer = await send(accounts, admin.access, {
          method: 'POST',
          path,
          headers: {},
          body: { reason: 'not mine to pull' },
        });
        assert.equal(answer.status, 403, `${path} ${answer.body}`);
      }
    } finally {
      await logout(admin);
    }
  });
});
