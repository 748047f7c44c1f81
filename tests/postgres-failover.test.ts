/**
 * The Patroni primary is killed while a writer runs: no acknowledged write is lost, the write gap is measured, and
 * Keycloak issues tokens from the moment at which the new primary takes writes.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { get, kubectl } from './support/kubectl.ts';
import { openWriter } from './support/postgres.ts';
import { tokenRequester } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const namespace = 'local-data';

interface Pods {
  readonly items: readonly { readonly metadata: { readonly name: string; readonly labels: Record<string, string> } }[];
}

async function primary(): Promise<string | undefined> {
  const pods = await get<Pods>('pods', '-n', namespace, '-l', 'role=primary');
  return pods.items[0]?.metadata.name;
}

/** More than the 20 connections of Keycloak's pool: every one of them is used. */
const tokensAtOnce = 40;

describe('Postgres under Patroni', () => {
  it('loses no acknowledged write when the primary is killed', { timeout: 240_000 }, async (t) => {
    const old = await eventually('a primary', 30, primary);
    await using writer = await openWriter();
    const ask = await tokenRequester('acme-agent');
    const statuses = async () =>
      (await Promise.all(Array.from({ length: tokensAtOnce }, ask))).map(({ status }) => status);
    const allGood = Array.from({ length: tokensAtOnce }, () => 200);
    assert.deepEqual(await statuses(), allGood);
    await sleep(3000);
    await kubectl('exec', '-n', namespace, old, '--', 'sh', '-c', 'kill -9 1 $(pidof postgres)').catch(() => undefined);
    await kubectl('delete', 'pod', '-n', namespace, old, '--grace-period=0', '--force');
    const killed = writer.acknowledged.length;
    await eventually('the new primary writes', 90, async () =>
      writer.acknowledged.length > killed ? true : undefined,
    );
    assert.deepEqual(await statuses(), allGood);
    await eventually('writes go on', 90, async () => (writer.acknowledged.length > killed + 50 ? true : undefined));
    const { acknowledged, stored, longestGapMs } = await writer.finish();
    const storedSet = new Set(stored);
    const lost = acknowledged.filter((id) => !storedSet.has(id));
    t.diagnostic(
      `acknowledged ${acknowledged.length}, stored ${stored.length}, write gap ${longestGapMs.toFixed(0)} ms`,
    );
    assert.deepEqual(lost, []);
    assert.ok(longestGapMs < 60_000, `write gap ${longestGapMs} ms`);
    await kubectl('wait', '-n', namespace, '--for=condition=Ready', `pod/${old}`, '--timeout=120s');
  });
});
