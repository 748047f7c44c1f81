/*
 * Proves on real processes that `up` ends well after `kill -9` at any moment and after a reboot, and that `down` leaves
 * nothing. Runs in a sandbox of namespaces beside the cluster of this machine, which it does not touch:
 *
 *   npx node cluster/lifecycle.ts [milliseconds after which `up` is killed ...]
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './command.ts';
import { layout, namespacePath } from './layout.ts';
import { cgroupVersion, hierarchies, killPods } from './node/cgroups.ts';
import { unmountBelow } from './node/mounts.ts';
import { clusterProcesses } from './node/processes.ts';
import { clusterStatus } from './node/status.ts';
import { type Progress, startProgress } from './progress.ts';

const main = join(import.meta.dirname, 'main.ts');
const inside = 'SANDBOX_REPOSITORY';

function enterSandbox(): void {
  if (cgroupVersion() === 2)
    throw new Error('the sandbox needs control groups of version 1; on this machine try it on the cluster itself');
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--mount-proc'];
  const command = ['sh', join(import.meta.dirname, 'sandbox.sh'), process.execPath, ...process.argv.slice(1)];
  const env = {
    ...process.env,
    [inside]: join(import.meta.dirname, '..'),
    SOMAGENT_STATE_DIR: '/var/lib/somagent-sandbox',
  };
  const { status } = spawnSync('unshare', [...namespaces, ...command], { stdio: 'inherit', env });
  for (const root of hierarchies())
    spawnSync('find', [join(root, 'sandbox'), '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+']);
  process.exitCode = status ?? 1;
}

const cluster = (command: string): Promise<string> => run(process.execPath, [main, command], { deadline: 180_000 });

async function killedAfter(delay: number, say: Progress): Promise<void> {
  const up = spawn(process.execPath, [main, 'up'], { stdio: 'ignore' });
  await sleep(delay);
  up.kill('SIGKILL');
  await assertUp();
  say(`killed after ${delay} ms: the next up is healthy`);
  await cluster('down');
}

async function assertUp(): Promise<void> {
  await cluster('up');
  const { state, troubles } = await clusterStatus(layout());
  assert.deepEqual(troubles, []);
  assert.equal(state, 'healthy');
}

/** All processes die at once, mounts and namespaces are gone, /run is empty; only the disk stays. */
async function reboot(say: Progress): Promise<void> {
  await cluster('up');
  const { state, run: runFolder } = layout();
  for (const { pid } of clusterProcesses(state)) process.kill(pid, 'SIGKILL');
  while (!killPods()) await sleep(20);
  await unmountBelow(state);
  await unmountBelow(runFolder);
  await unmountBelow(namespacePath);
  rmSync(runFolder, { recursive: true });
  // What `ip netns add` leaves where /run is a disk: a file that leads nowhere.
  writeFileSync(namespacePath, '');
  await assertUp();
  say('after a reboot: the next up is healthy');
}

async function downLeavesNothing(say: Progress): Promise<void> {
  await cluster('down');
  const { state, run: runFolder } = layout();
  assert.deepEqual(clusterProcesses(state), []);
  assert.equal(existsSync(state) || existsSync(runFolder) || existsSync(namespacePath), false);
  assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), /somagent|\/run\/netns/);
  const groups = hierarchies().flatMap((root) => readdirSync(root));
  assert.deepEqual(
    groups.filter((name) => name === 'kubepods' || name === 'somagent'),
    [],
  );
  say('down leaves nothing');
}

if (process.env[inside] === undefined) {
  enterSandbox();
} else {
  const say = startProgress();
  const delays = process.argv.slice(2).map(Number);
  for (const delay of delays.length > 0 ? delays : [200, 800, 2000, 4000, 7000]) await killedAfter(delay, say);
  await reboot(say);
  await downLeavesNothing(say);
}
