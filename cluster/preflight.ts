import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { createServer } from 'node:net';
import { totalmem } from 'node:os';
import { basename, dirname } from 'node:path';
import { promisify } from 'node:util';
import { forwards, type Layout } from './layout.ts';
import { clusterProcesses } from './node/processes.ts';
import { isProvided, missingPackages } from './packages.ts';
import { missingFamilies } from './toolchain.ts';

const execute = promisify(execFile);
const gibibyte = 2 ** 30;

/** Why the machine can't hold the cluster as it is: each part is a sentence for a person. */
export interface Problem {
  readonly what: string;
  readonly why: string;
  /** The command that mends it, or what to change. */
  readonly fix: string;
}

/** What the checks ask the machine. Tests give their own answers. */
export interface Probes {
  readonly platform: string;
  readonly uid: number;
  /** Bytes. */
  readonly totalMemory: number;
  readonly stateFolder: string;
  readonly cacheFolder: string;
  /** True when the command or file is there. */
  provided(program: string): boolean;
  /** Bytes that are free where a folder is or will be. */
  freeBytes(folder: string): number;
  /** Which process listens at 127.0.0.1:port, if any. */
  listener(port: number): Promise<'nobody' | 'us' | string>;
  /** Runs a shell script in a network and mount namespace of its own; gives what it said when it failed. */
  failureOf(script: string): Promise<string | undefined>;
  /** Control group controllers that are mounted. */
  controllers(): readonly string[];
  /** Names of foreign programs that run a Kubernetes node here. */
  foreignNodePrograms(): readonly string[];
  /** `go1.26.8`, or undefined where there is no Go. */
  goVersion(): Promise<string | undefined>;
  /** Number of families of programs that have yet to be built. */
  toBuild(): number;
}

type Check = (probes: Probes) => Promise<Problem | undefined> | Problem | undefined;

/** Runs every check; an empty list means that nothing is in the way. Changes nothing on the machine. */
export async function preflight(probes: Probes): Promise<Problem[]> {
  // Without these two the others would only say the same in other words.
  const first = linux(probes) ?? administrator(probes) ?? packages(probes);
  if (first) return [first];
  const rest: readonly Check[] = [...features, controlGroups, memory, ...disks, compiler, foreignNode];
  const problems = await Promise.all([
    ...rest.map((check) => check(probes)),
    ...forwards.map((each) => port(probes, each)),
  ]);
  return problems.filter((problem) => problem !== undefined);
}

/** A refusal for people. */
export function formatProblems(problems: readonly Problem[]): string {
  return problems.map(({ what, why, fix }) => `${what}\n  why: ${why}\n  fix: ${fix}`).join('\n');
}

const linux: (probes: Probes) => Problem | undefined = ({ platform }) =>
  platform === 'linux'
    ? undefined
    : {
        what: `the local cluster runs on Linux only, this is ${platform}`,
        why: 'Kubernetes nodes use namespaces and control groups of the Linux kernel',
        fix: 'use a Linux machine, or set SOMA_CONTEXT to the kubeconfig context of a cluster that you have',
      };

const administrator: (probes: Probes) => Problem | undefined = ({ uid }) =>
  uid === 0
    ? undefined
    : {
        what: `the local cluster is started by root, you are user ${uid}`,
        why: 'network namespaces, mounts and control groups are made',
        fix: 'sudo make up',
      };

const packages: (probes: Probes) => Problem | undefined = (probes) => {
  const missing = missingPackages((program) => probes.provided(program));
  if (missing.length === 0) return undefined;
  return {
    what: `missing: ${missing.map(({ name, provides }) => `${provides} (package ${name})`).join(', ')}`,
    why: missing.map(({ name, purpose }) => `${name}: ${purpose}`).join('; '),
    fix: `apt-get install --no-install-recommends ${missing.map(({ name }) => name).join(' ')}`,
  };
};

/** Each feature is tried, not looked up: a kernel's configuration says nothing about what a container may do. */
const features: readonly Check[] = [
  feature('network interfaces (veth, bridge)', 'pods and the node have interfaces of their own', [
    'ip link add soma0 type bridge',
    'ip link add soma1 type veth peer name soma2',
  ]),
  feature('packet filter with connection tracking', 'Services and network policies are rules of it', [
    'iptables -t nat -A POSTROUTING -m comment --comment soma -j MASQUERADE',
    'iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT',
    'iptables -A FORWARD -m statistic --mode random --probability 0.5 -j ACCEPT',
  ]),
  feature('overlay file system', 'containers share the layers of their images through it', [
    'mount -t tmpfs soma /mnt',
    'mkdir /mnt/lower /mnt/upper /mnt/work /mnt/merged',
    'mount -t overlay soma -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged',
  ]),
];

function feature(name: string, why: string, commands: readonly string[]): Check {
  return async (probes) => {
    const failure = await probes.failureOf(commands.join(' && '));
    if (failure === undefined) return undefined;
    return {
      what: `the kernel does not give: ${name} (${failure.trim().split('\n').at(-1)})`,
      why,
      fix: 'load the modules (modprobe -a veth bridge overlay nf_conntrack nft_compat xt_comment), or use a machine whose kernel has them; in a container start it privileged',
    };
  };
}

const neededControllers = ['cpu', 'cpuset', 'memory', 'pids'];

const controlGroups: Check = (probes) => {
  const present = probes.controllers();
  const missing = neededControllers.filter((name) => !present.includes(name));
  if (missing.length === 0) return undefined;
  return {
    what: `control group controllers are missing: ${missing.join(', ')}`,
    why: 'the kubelet limits the CPU, memory and processes of pods with them',
    fix: 'mount -t cgroup2 none /sys/fs/cgroup, or boot with cgroup_enable=memory',
  };
};

const memory: Check = ({ totalMemory }) => {
  const needed = 8 * gibibyte;
  // Firmware keeps a part of what is sold as 8 GiB.
  if (totalMemory >= 0.93 * needed) return undefined;
  return {
    what: `memory: ${gib(totalMemory)}, needed are ${gib(needed)}`,
    why: 'the whole platform with its databases and the model lives in it',
    fix: 'use a larger machine, or set SOMA_CONTEXT to the kubeconfig context of a cluster that you have',
  };
};

const disks: readonly Check[] = [
  disk(
    'state',
    ({ stateFolder }) => stateFolder,
    () => 10,
    'SOMAGENT_STATE_DIR',
  ),
  // Go keeps about 10 GiB of intermediate results while everything is built.
  disk(
    'caches',
    ({ cacheFolder }) => cacheFolder,
    ({ toBuild }) => (toBuild() > 0 ? 20 : 5),
    'XDG_CACHE_HOME',
  ),
];

function disk(
  name: string,
  folder: (probes: Probes) => string,
  needs: (probes: Probes) => number,
  variable: string,
): Check {
  return (probes) => {
    const free = probes.freeBytes(folder(probes));
    const needed = needs(probes) * gibibyte;
    if (free >= needed) return undefined;
    return {
      what: `disk full: ${folder(probes)} (${name}) has ${gib(free)} left, needed are ${gib(needed)}`,
      why: 'images, volumes and built programs are kept there; a full disk makes the kubelet evict pods',
      fix: `free space (go clean -cache; buildah prune --all), or set ${variable} to a folder on a larger disk`,
    };
  };
}

function gib(bytes: number): string {
  return `${(bytes / gibibyte).toFixed(1)} GiB`;
}

async function port(
  probes: Probes,
  { port: number, purpose }: (typeof forwards)[number],
): Promise<Problem | undefined> {
  const holder = await probes.listener(number);
  if (holder === 'nobody' || holder === 'us') return undefined;
  return {
    what: `port 127.0.0.1:${number} is taken by ${holder}`,
    why: `the ${purpose} of the local cluster is reached there`,
    fix: `end ${holder}, then run this again (ss -ltnp 'sport = :${number}' shows who it is)`,
  };
}

const compiler: Check = async (probes) => {
  if (probes.toBuild() === 0) return undefined;
  const version = await probes.goVersion();
  const [, major = '0', minor = '0'] = version?.match(/^go(\d+)\.(\d+)/) ?? [];
  // From 1.21 on Go fetches the version that a go.mod asks for.
  if (Number(major) > 1 || Number(minor) >= 21) return undefined;
  return {
    what: version ? `Go is too old: ${version}` : 'there is no Go compiler',
    why: 'Kubernetes and the other programs of the cluster are built from their Go modules',
    fix: 'install Go 1.21 or later from https://go.dev/dl/ and put it on the path',
  };
};

const foreignNode: Check = (probes) => {
  const found = probes.foreignNodePrograms();
  if (found.length === 0) return undefined;
  return {
    what: `another Kubernetes node runs on this machine: ${found.join(', ')}`,
    why: 'two kubelets would delete each other’s control groups and mounts',
    fix: 'set SOMA_CONTEXT to its kubeconfig context to use that cluster, or stop it',
  };
};

/** The answers of this machine. */
export function machineProbes({ state, cache }: Layout): Probes {
  return {
    platform: process.platform,
    uid: process.getuid?.() ?? -1,
    totalMemory: totalmem(),
    stateFolder: state,
    cacheFolder: cache,
    provided: (program) => isProvided(program),
    freeBytes,
    listener: (number) => listener(number, state),
    failureOf: async (script) =>
      execute('unshare', ['--net', '--mount', 'sh', '-c', script]).then(
        () => undefined,
        (error: { stderr?: string; message: string }) => error.stderr || error.message,
      ),
    controllers,
    foreignNodePrograms: () => foreignNodePrograms(state),
    goVersion: async () =>
      execute('go', ['env', 'GOVERSION']).then(
        ({ stdout }) => stdout.trim(),
        () => undefined,
      ),
    toBuild: () => (isProvided('go') ? missingFamilies().length : 1),
  };
}

function freeBytes(folder: string): number {
  let existing = folder;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = statfsSync(existing);
  return bavail * bsize;
}

async function listener(number: number, state: string): Promise<string> {
  const free = await new Promise<boolean>((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(number, '127.0.0.1', () => server.close(() => resolve(true)));
  });
  if (free) return 'nobody';
  const pid = socketOwner(number);
  if (pid === undefined) return 'an unknown process';
  if (clusterProcesses(state).some((each) => each.pid === pid)) return 'us';
  return `${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()} (pid ${pid})`;
}

/** Pid of who listens at a TCP port: the inode of the socket from /proc/net, its owner from the open files. */
function socketOwner(number: number): number | undefined {
  const hex = number.toString(16).toUpperCase().padStart(4, '0');
  const listening = '0A';
  const inodes = ['/proc/net/tcp', '/proc/net/tcp6']
    .filter((file) => existsSync(file))
    .flatMap((file) => readFileSync(file, 'utf8').split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${hex}`) && fields[3] === listening)
    .map((fields) => `socket:[${fields[9]}]`);
  return processIds().find((pid) => openFiles(pid).some((file) => inodes.includes(file)));
}

function processIds(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number);
}

function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map((descriptor) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${descriptor}`);
      } catch {
        return '';
      }
    });
  } catch {
    return [];
  }
}

function controllers(): string[] {
  const unified = '/sys/fs/cgroup/cgroup.controllers';
  if (existsSync(unified)) return readFileSync(unified, 'utf8').trim().split(' ');
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(' - cgroup '))
    .flatMap((line) => line.split(' ').at(-1)?.split(',') ?? []);
}

function foreignNodePrograms(state: string): string[] {
  const ours = new Set(clusterProcesses(state).map(({ pid }) => pid));
  const names = new Set(['kubelet', 'k3s-server', 'k3s']);
  return processIds()
    .filter((pid) => !ours.has(pid))
    .flatMap((pid) => {
      try {
        const program = basename(readlinkSync(`/proc/${pid}/exe`));
        return names.has(program) ? [`${program} (pid ${pid})`] : [];
      } catch {
        return [];
      }
    });
}
