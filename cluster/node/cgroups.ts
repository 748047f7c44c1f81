import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';

const mountPoint = '/sys/fs/cgroup';
/** Our own processes; without it they would stay in the group of the shell that ran `up` and die or starve with it. */
const ownGroup = 'somagent';
/** What the kubelet makes for pods when the cgroup driver is cgroupfs. */
const podGroup = 'kubepods';

/** 2 where one unified hierarchy is mounted, 1 where each controller has its own. */
export function cgroupVersion(): 1 | 2 {
  return existsSync(join(mountPoint, 'cgroup.controllers')) ? 2 : 1;
}

/** Roots of the hierarchies in which groups are made. */
export function hierarchies(): string[] {
  if (cgroupVersion() === 2) return [mountPoint];
  return readdirSync(mountPoint, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(mountPoint, entry.name, 'cgroup.procs')))
    .map((entry) => join(mountPoint, entry.name));
}

/** Makes the group of our own processes; gives the `cgroup.procs` files that a process has to write itself into. */
export function ensureOwnGroup(): string[] {
  const roots =
    cgroupVersion() === 2 ? hierarchies() : hierarchies().filter((root) => /\/(cpuacct|memory)$/.test(root));
  return roots.map((root) => {
    const group = join(root, ownGroup);
    mkdirSync(group, { recursive: true });
    return join(group, 'cgroup.procs');
  });
}

/** CPU seconds that the cluster's processes and pods have used since their groups were made. */
export function cpuSeconds(): number {
  return [ownGroup, podGroup].reduce((sum, group) => sum + groupCpuSeconds(group), 0);
}

function groupCpuSeconds(group: string): number {
  if (cgroupVersion() === 1)
    return Number(readOptional(join(mountPoint, 'cpuacct', group, 'cpuacct.usage')) ?? 0) / 1e9;
  const usage = readOptional(join(mountPoint, group, 'cpu.stat'))?.match(/^usage_usec (\d+)/m)?.[1];
  return Number(usage ?? 0) / 1e6;
}

/** Bytes of memory that the cluster's processes and pods hold, without the page cache where the kernel tells it apart. */
export function memoryBytes(): { readonly system: number; readonly pods: number } {
  return { system: groupMemory(ownGroup), pods: groupMemory(podGroup) };
}

function groupMemory(group: string): number {
  if (cgroupVersion() === 1) {
    const text = readOptional(join(mountPoint, 'memory', group, 'memory.stat'));
    return Number(text?.match(/^total_rss (\d+)/m)?.[1] ?? 0);
  }
  return Number(readOptional(join(mountPoint, group, 'memory.stat'))?.match(/^anon (\d+)/m)?.[1] ?? 0);
}

/** Kills every process in pods' groups; true when none was left to kill. */
export function killPods(): boolean {
  const pids = hierarchies().flatMap((root) => membersOf(join(root, podGroup)));
  for (const pid of new Set(pids)) signal(pid);
  return pids.length === 0;
}

/** Deletes the groups that the cluster made; true when none is left. A group with a member can't be deleted. */
export function deleteGroups(): boolean {
  const groups = hierarchies().flatMap((root) => [join(root, podGroup), join(root, ownGroup)]);
  for (const group of groups) deleteTree(group);
  return !groups.some((group) => existsSync(group));
}

function membersOf(group: string): number[] {
  const own = readOptional(join(group, 'cgroup.procs'))?.split('\n').filter(Boolean).map(Number) ?? [];
  return [...own, ...subgroups(group).flatMap(membersOf)];
}

function deleteTree(group: string): void {
  for (const child of subgroups(group)) deleteTree(child);
  try {
    rmdirSync(group);
  } catch {
    // Absent, or a process is still leaving it: the caller looks again.
  }
}

function subgroups(group: string): string[] {
  if (!existsSync(group)) return [];
  return readdirSync(group, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(group, entry.name));
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function signal(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}
