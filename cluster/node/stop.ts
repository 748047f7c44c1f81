import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { succeeds } from '../command.ts';
import type { Layout } from '../layout.ts';
import { deleteGroups, killPods } from './cgroups.ts';
import { takeLock } from './lock.ts';
import { mountsBelow, unmountBelow } from './mounts.ts';
import { deleteNetwork } from './network.ts';
import { clusterProcesses, stopProcesses } from './processes.ts';
import type { ProgramName } from './programs.ts';

/** What `down` may leave. */
export interface StopOptions {
  /** Keeps etcd, certificates, volumes and unpacked images, so that the next `up` has the same cluster. */
  readonly keepData?: boolean;
}

/** Who ends together, in order, and after how many milliseconds they are killed. */
const order: readonly { readonly names: readonly ProgramName[]; readonly deadline: number }[] = [
  // Whoever would start pods again goes before the pods do.
  {
    names: [
      'kubelet',
      'kube-controller-manager',
      'kube-scheduler',
      'kube-proxy',
      'storage',
      'metrics-server',
      'network-policy',
    ],
    deadline: 5000,
  },
  { names: ['kube-apiserver', 'containerd'], deadline: 3000 },
  { names: ['etcd', 'registry', 'forward'], deadline: 3000 },
];

/** Takes the cluster down, whatever is left of it. Only the caches stay: built programs and the registry's images. */
export async function stopCluster(
  places: Layout,
  say: (text: string) => void,
  options: StopOptions = {},
): Promise<void> {
  const lock = await takeLock(places.state);
  try {
    await stopPrograms(places.state);
    say('processes and pods have ended');
    await unmountBelow(places.state);
    await unmountBelow(places.run);
    say('mounts are gone');
    await deleteNetwork();
    deleteTraces(places.run);
    await deleteGroupsInTime();
    say('network and control groups are gone; deleting the state');
    await deleteFolders(places, options);
    say(options.keepData ? `nothing runs; data kept in ${places.state}` : 'nothing is left but the caches');
  } finally {
    lock.release();
  }
}

async function stopPrograms(state: string): Promise<void> {
  const [first, ...rest] = order;
  const stop = async ({ names, deadline }: (typeof order)[number]): Promise<void> => {
    const wanted = new Set<string>(names);
    // Shims carry containerd's name; they end after their pods and not before.
    const processes = clusterProcesses(state).filter(
      ({ name, program }) => wanted.has(name) && !program.startsWith('containerd-shim'),
    );
    await stopProcesses(processes, deadline);
  };
  if (first) await stop(first);
  await endPods();
  for (const group of rest) await stop(group);
  await stopProcesses(clusterProcesses(state), 500);
}

/** A pod may fork while it is killed, so it is done when nothing was left to kill. */
async function endPods(): Promise<void> {
  for (const end = performance.now() + 10_000; !killPods(); await sleep(20)) {
    if (performance.now() > end)
      throw new Error('processes of pods do not end, even killed; see /sys/fs/cgroup/**/kubepods');
  }
}

async function deleteGroupsInTime(): Promise<void> {
  for (const end = performance.now() + 5000; !deleteGroups(); await sleep(20)) {
    if (performance.now() > end)
      throw new Error('control groups of the cluster are still in use; see /sys/fs/cgroup/**/somagent');
  }
}

async function deleteFolders({ state, run, kubeconfig }: Layout, { keepData }: StopOptions): Promise<void> {
  const left = [...mountsBelow(run), ...mountsBelow(state)];
  // Deleting through a mount that stayed would delete what is mounted there.
  if (left.length > 0) throw new Error(`still mounted: ${left.join(', ')}; end what uses it (fuser -m), then repeat`);
  rmSync(run, { recursive: true, force: true });
  rmSync(kubeconfig, { force: true });
  if (!keepData) rmSync(state, { recursive: true, force: true });
  if (existsSync('/run/netns') && readdirSync('/run/netns').length === 0) {
    await succeeds('umount', ['/run/netns']);
    deleteWhenEmpty('/run/netns');
  }
}

/** What programs write at fixed places that no setting of theirs moves. */
function deleteTraces(run: string): void {
  deleteShimSockets(run);
  const logs = '/var/log/containers';
  if (existsSync(logs)) {
    for (const name of readdirSync(logs)) deleteDeadLink(join(logs, name));
  }
  const results = '/var/lib/cni/results';
  if (existsSync(results)) deleteNetworkResults(results);
  rmSync('/var/lib/kubelet/device-plugins', { recursive: true, force: true });
  for (const folder of [logs, results, '/var/lib/cni', '/var/lib/kubelet', '/run/containerd/s', '/run/containerd']) {
    deleteWhenEmpty(folder);
  }
}

/** A sandbox has a result of our network, and one of the loopback that is named by the same id. */
function deleteNetworkResults(folder: string): void {
  const names = readdirSync(folder);
  const ids = names.flatMap((name) => name.match(/^somagent-([0-9a-f]+)-/)?.[1] ?? []);
  for (const name of names) if (ids.some((id) => name.includes(id))) rmSync(join(folder, name), { force: true });
}

/** Each shim wrote the address of its socket beside its container. */
function deleteShimSockets(run: string): void {
  const tasks = join(run, 'containerd/io.containerd.runtime.v2.task/k8s.io');
  if (!existsSync(tasks)) return;
  for (const id of readdirSync(tasks)) {
    const file = join(tasks, id, 'address');
    if (existsSync(file)) rmSync(readFileSync(file, 'utf8').replace(/^unix:\/\//, ''), { force: true });
  }
}

function deleteDeadLink(path: string): void {
  try {
    if (readlinkSync(path).includes('/pod-logs/')) unlinkSync(path);
  } catch {
    // Not a link: not ours.
  }
}

function deleteWhenEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // Absent, or somebody else uses it.
  }
}
