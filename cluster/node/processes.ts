import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, renameSync, statSync } from 'node:fs';
import { userInfo } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { insideArguments } from './network.ts';

/** A program of the node and how it is started. */
export interface Program {
  /** Also the name of its executable file: that is how it is told from the helpers that it starts. */
  readonly name: string;
  readonly command: readonly [path: string, ...args: string[]];
  readonly env?: Readonly<Record<string, string>>;
  /** SHA-256 of the command and its settings: a running process with another one is out of date. */
  readonly digest: string;
  /** Runs in the machine's own network namespace instead of the cluster's. */
  readonly outside?: boolean;
}

/** A process that runs now. */
export interface RunningProcess {
  readonly name: string;
  readonly pid: number;
  /** Start in clock ticks since boot: with the pid it names one process for ever, which a pid alone does not. */
  readonly startTime: string;
  /** That of the {@link Program} that it was started from. */
  readonly digest: string;
  /** Inode of its network namespace. */
  readonly network: number;
}

/*
 * Each process carries its name and its cluster's state folder in its environment, where the kernel keeps them for as
 * long as it lives. A file with its pid could be stale (after a reboot) or missing (starter killed before writing).
 */
const nameVariable = 'SOMAGENT_PROCESS';
const stateVariable = 'SOMAGENT_STATE';
const digestVariable = 'SOMAGENT_DIGEST';

/** Starts a program detached from this process, in the groups given, its output appended to `<logs>/<name>.log`. */
export function startProgram(program: Program, state: string, groups: readonly string[]): void {
  const log = openLog(state, program.name);
  const command = program.outside ? [...program.command] : ['nsenter', ...insideArguments(program.command)];
  const enter = groups.map((group) => `echo $$ > ${group}; `).join('');
  const child = spawn('sh', ['-c', `${enter}exec "$@"`, 'sh', ...command], {
    detached: true,
    cwd: '/',
    env: {
      PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: userInfo().homedir,
      ...program.env,
      [nameVariable]: program.name,
      [stateVariable]: state,
      [digestVariable]: program.digest,
    },
    stdio: ['ignore', log, log],
  });
  child.unref();
  closeSync(log);
}

const logLimit = 20 * 2 ** 20;

/** Appends; a log that has grown large is kept once more under another name. */
function openLog(state: string, name: string): number {
  const path = logFile(state, name);
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > logLimit) renameSync(path, `${path}.previous`);
  return openSync(path, 'a', 0o640);
}

/** Where a program's output goes. */
export function logFile(state: string, name: string): string {
  const folder = join(state, 'logs');
  mkdirSync(folder, { recursive: true });
  return join(folder, `${name}.log`);
}

/** Last lines of a program's log. */
export function logTail(state: string, name: string, lines = 5): string {
  try {
    return readFileSync(logFile(state, name), 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  } catch {
    return '';
  }
}

/** Every process of this cluster, helpers that they started (shims, iptables) under the name of their starter too. */
export function clusterProcesses(state: string): (RunningProcess & { readonly program: string })[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((entry) => {
      const found = inspect(Number(entry), state);
      return found ? [found] : [];
    });
}

/** The processes of this cluster that are its programs themselves. */
export function runningPrograms(state: string): RunningProcess[] {
  return clusterProcesses(state).filter(({ name, program }) => program === name);
}

function inspect(pid: number, state: string): (RunningProcess & { readonly program: string }) | undefined {
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    if (!environment.includes(`${stateVariable}=${state}`)) return undefined;
    const variableOf = (variable: string): string =>
      environment.find((entry) => entry.startsWith(`${variable}=`))?.slice(variable.length + 1) ?? '';
    const name = variableOf(nameVariable);
    const startTime = readStartTime(pid);
    if (!name || !startTime) return undefined;
    const program = basename(readlinkSync(`/proc/${pid}/exe`)).replace(/ \(deleted\)$/, '');
    return { name, pid, startTime, digest: variableOf(digestVariable), network: networkOf(pid), program };
  } catch {
    return undefined; // It ended while it was looked at, or it is not ours to read.
  }
}

function networkOf(pid: number): number {
  return statSync(`/proc/${pid}/ns/net`).ino;
}

/** Field 22 of /proc/<pid>/stat, or undefined when the process is gone or only waits to be reaped. */
function readStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in brackets and may itself hold spaces and brackets.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** True while exactly this process lives. */
export function isAlive(process_: Pick<RunningProcess, 'pid' | 'startTime'>): boolean {
  return readStartTime(process_.pid) === process_.startTime;
}

/** Asks processes to end and kills them when the deadline (ms) is over. Never touches a process that reuses a pid. */
export async function stopProcesses(processes: readonly RunningProcess[], deadline: number): Promise<void> {
  if (await signalUntilGone(processes, 'SIGTERM', deadline)) return;
  if (await signalUntilGone(processes, 'SIGKILL', 5000)) return;
  const left = processes.filter(isAlive).map(({ name, pid }) => `${name} (pid ${pid})`);
  throw new Error(
    `processes do not end, even killed: ${left.join(', ')}; look at /proc/<pid>/stack for what they wait for`,
  );
}

async function signalUntilGone(processes: readonly RunningProcess[], signal: NodeJS.Signals, deadline: number) {
  for (const each of processes) {
    if (isAlive(each)) kill(each.pid, signal);
  }
  for (const end = performance.now() + deadline; performance.now() < end; await sleep(20)) {
    if (!processes.some(isAlive)) return true;
  }
  return !processes.some(isAlive);
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended in between.
  }
}
