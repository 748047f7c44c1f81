import { existsSync } from 'node:fs';
import { type Layout, nodeName } from '../layout.ts';
import { Api } from './api.ts';
import { Pki } from './certificates.ts';
import { memoryBytes } from './cgroups.ts';
import { namespaceExists } from './network.ts';
import { explainPod, type Pod } from './pods.ts';
import { logFile, logTail, runningPrograms } from './processes.ts';
import { type ProgramName, programNames } from './programs.ts';

/** Something that is not as it should be. */
export interface Trouble {
  /** What: a program, the node, or `pod <namespace>/<name>`. */
  readonly object: string;
  readonly cause: string;
  readonly fix: string;
}

/** What runs, and why something does not. */
export interface ClusterStatus {
  /** `absent`: nothing of it is on this machine. */
  readonly state: 'absent' | 'healthy' | 'troubled';
  readonly programs: readonly { readonly name: ProgramName; readonly pid: number | undefined }[];
  readonly pods: { readonly ready: number; readonly total: number };
  /** Bytes that the control plane and the pods hold. */
  readonly memory: { readonly system: number; readonly pods: number };
  readonly troubles: readonly Trouble[];
}

const repair = 'run `make up`: it starts what is missing and leaves the rest alone';

/** Looks at the whole cluster. Changes nothing. */
export async function clusterStatus({ state }: Layout): Promise<ClusterStatus> {
  const running = runningPrograms(state);
  const programs = programNames.map((name) => ({ name, pid: running.find((each) => each.name === name)?.pid }));
  const memory = memoryBytes();
  if (running.length === 0 && !existsSync(state)) {
    return { state: 'absent', programs, pods: { ready: 0, total: 0 }, memory, troubles: [] };
  }
  const { pods, troubles } = await askApi(state);
  const all = [...deadPrograms(state, programs), ...networkTrouble(), ...troubles];
  return { state: all.length === 0 ? 'healthy' : 'troubled', programs, pods, memory, troubles: all };
}

function deadPrograms(state: string, programs: ClusterStatus['programs']): Trouble[] {
  return programs
    .filter(({ pid }) => pid === undefined)
    .map(({ name }) => ({
      object: name,
      cause: `does not run; ${logFile(state, name)} ends: ${logTail(state, name, 1) || '(empty)'}`,
      fix: repair,
    }));
}

function networkTrouble(): Trouble[] {
  if (namespaceExists()) return [];
  return [{ object: 'network namespace soma', cause: 'is not there, as after a reboot', fix: repair }];
}

async function askApi(state: string): Promise<Pick<ClusterStatus, 'pods' | 'troubles'>> {
  const nothing = { ready: 0, total: 0 };
  if (!existsSync(new Pki(state).certificate('admin'))) {
    return { pods: nothing, troubles: [{ object: 'API server', cause: 'was never started to the end', fix: repair }] };
  }
  const api = new Api(new Pki(state));
  try {
    const [node, { items }] = await Promise.all([nodeTrouble(api), api.get<{ items: Pod[] }>('/api/v1/pods')]);
    const current = items.filter(({ status }) => status.phase !== 'Succeeded');
    const troubled = current.filter((pod) => !isReady(pod));
    const reasons = await Promise.all(troubled.map((pod) => explainPod(api, pod)));
    return {
      pods: { ready: current.length - troubled.length, total: current.length },
      troubles: [...node, ...reasons],
    };
  } catch (error) {
    return { pods: nothing, troubles: [{ object: 'API server', cause: (error as Error).message, fix: repair }] };
  } finally {
    api.close();
  }
}

function isReady({ status }: Pod): boolean {
  return status.conditions?.some(({ type, status: value }) => type === 'Ready' && value === 'True') ?? false;
}

async function nodeTrouble(api: Api): Promise<Trouble[]> {
  interface Node {
    readonly status: { readonly conditions: readonly { type: string; status: string; message: string }[] };
  }
  const node = await api.get<Node>(`/api/v1/nodes/${nodeName}`);
  return node.status.conditions
    .filter(({ type, status }) => status !== (type === 'Ready' ? 'True' : 'False'))
    .map(({ type, message }) => ({
      object: `node ${nodeName}`,
      cause: `${type}: ${message}`,
      fix: nodeFixes[type] ?? repair,
    }));
}

const nodeFixes: Readonly<Record<string, string>> = {
  DiskPressure: 'free disk space: `go clean -cache`, `buildah prune`, or delete old tags from the registry',
  MemoryPressure: 'free memory, or give the machine more: the platform needs 8 GiB',
  PIDPressure: 'end what starts processes without end',
};

/** For people: a line per program, then each trouble with its cause and fix. */
export function formatStatus(status: ClusterStatus): string {
  const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
  if (status.state === 'absent') return 'no local cluster on this machine; `make up` makes one\n';
  const { pods, memory, troubles } = status;
  const lines = [
    ...status.programs.map(({ name, pid }) => `${pid ? 'runs   ' : 'STOPPED'} ${name}${pid ? ` (pid ${pid})` : ''}`),
    `pods    ${pods.ready} of ${pods.total} ready`,
    `memory  ${mebibytes(memory.system)} control plane, ${mebibytes(memory.pods)} pods`,
    ...troubles.flatMap(({ object, cause, fix }) => [`TROUBLE ${object}: ${cause}`, `        fix: ${fix}`]),
  ];
  return `${lines.join('\n')}\n`;
}
