/**
 * Memory of the whole platform: the proportional set size (PSS) of every process of the local cluster (those in its
 * network namespace) and of every pod, grouped by command. Needs root. `node tests/bench/memory.ts`
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';

const NETWORK_NAMESPACE = '/run/netns/soma';

interface Usage {
  readonly name: string;
  readonly place: 'cluster' | 'pods';
  readonly kib: number;
}

const readOr = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');

async function usage(pid: string, clusterNamespace: string): Promise<Usage | undefined> {
  const [cgroup, netns, rollup, name] = await Promise.all([
    readOr(`/proc/${pid}/cgroup`),
    readlink(`/proc/${pid}/ns/net`).catch(() => ''),
    readOr(`/proc/${pid}/smaps_rollup`),
    readOr(`/proc/${pid}/comm`),
  ]);
  const place = cgroup.includes('kubepods') ? 'pods' : netns === clusterNamespace ? 'cluster' : undefined;
  const kib = Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
  return place === undefined || kib === 0 ? undefined : { name: name.trim(), place, kib };
}

/** PSS in MiB by command, largest first, and the total. */
export async function platformMemory(): Promise<{ readonly totalMiB: number; readonly rows: [string, number][] }> {
  const { ino } = await stat(NETWORK_NAMESPACE);
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  const all = await Promise.all(pids.map((pid) => usage(pid, `net:[${ino}]`)));
  const byName = new Map<string, number>();
  for (const one of all) {
    if (one) byName.set(`${one.place}/${one.name}`, (byName.get(`${one.place}/${one.name}`) ?? 0) + one.kib / 1024);
  }
  const rows = [...byName].sort((a, b) => b[1] - a[1]);
  return { totalMiB: rows.reduce((total, [, mib]) => total + mib, 0), rows };
}

if (import.meta.main) {
  const { totalMiB, rows } = await platformMemory();
  for (const [name, mib] of rows.slice(0, 25)) console.log(`${mib.toFixed(0).padStart(7)} MiB  ${name}`);
  console.log(`${totalMiB.toFixed(0).padStart(7)} MiB  whole platform (mark: 8192)`);
}
