/** The runner on a real API server: idempotent, prunes, repairs drift, resumes after a kill. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { get, kubectl } from './support/kubectl.ts';
import { applySmall, destroySmall } from './support/small-program.ts';

interface Listed {
  readonly items: readonly { readonly metadata: { readonly name: string; readonly resourceVersion: string } }[];
}

const used: string[] = [];
function newNamespace(): string {
  const namespace = `apply-${randomBytes(3).toString('hex')}`;
  used.push(namespace);
  return namespace;
}

async function settings(namespace: string): Promise<Listed['items']> {
  const { items } = await get<Listed>('configmap', '-n', namespace);
  return items.filter(({ metadata }) => metadata.name.startsWith('settings-'));
}

describe('apply without the CLI', () => {
  after(async () => {
    for (const namespace of used) await destroySmall(namespace);
  });

  it('changes nothing the second time and repairs what was changed by hand', { timeout: 120_000 }, async () => {
    const namespace = newNamespace();
    await applySmall({ namespace });
    const before = await settings(namespace);
    await applySmall({ namespace });
    assert.deepEqual(
      (await settings(namespace)).map(({ metadata }) => metadata.resourceVersion),
      before.map(({ metadata }) => metadata.resourceVersion),
    );
    await kubectl('patch', 'configmap', 'settings-1', '-n', namespace, '--type=merge', '-p', '{"data":{"index":"9"}}');
    await applySmall({ namespace });
    const repaired = await get<{ data: { index: string } }>('configmap', 'settings-1', '-n', namespace);
    assert.equal(repaired.data.index, '1');
  });

  it('removes what the program no longer declares, and nothing else', { timeout: 120_000 }, async () => {
    const namespace = newNamespace();
    await applySmall({ namespace, settings: 3 });
    await kubectl('create', 'configmap', 'settings-foreign', '-n', namespace);
    const { pruned } = await applySmall({ namespace, settings: 1 });
    assert.equal(pruned, 2);
    const names = (await settings(namespace)).map(({ metadata }) => metadata.name);
    assert.deepEqual(names.toSorted(), ['settings-0', 'settings-foreign']);
  });

  it('goes on after a kill, and prunes what the killed run had made', { timeout: 180_000 }, async () => {
    const namespace = newNamespace();
    const script = new URL('support/small-program.ts', import.meta.url).pathname;
    const child = spawn(process.execPath, [script, JSON.stringify({ namespace, settings: 120 })], { stdio: 'ignore' });
    while ((await settings(namespace).catch(() => [])).length < 3) await sleep(50);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const halfway = (await settings(namespace)).length;
    assert.ok(halfway >= 3 && halfway < 120, `the kill came too late: ${halfway} of 120 objects`);
    const { pruned } = await applySmall({ namespace, settings: 2 });
    assert.equal((await settings(namespace)).length, 2);
    assert.equal(pruned, 118);
    const deployment = await get<{ status: { readyReplicas: number } }>('deployment', 'small', '-n', namespace);
    assert.equal(deployment.status.readyReplicas, 1);
  });
});
