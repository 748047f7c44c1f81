import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { imageReference } from '@somagent/images';
import { run, succeeds } from '../command.ts';
import { apiAddress, type Layout, namespacePath, network, nodeName, registryAddress } from '../layout.ts';
import type { Progress } from '../progress.ts';
import { buildToolchain, toolFamilies } from '../toolchain.ts';
import { applyAddons } from './addons.ts';
import { Api } from './api.ts';
import { ensureCertificates, type Pki, writeSecret } from './certificates.ts';
import { ensureOwnGroup } from './cgroups.ts';
import { takeLock } from './lock.ts';
import { ensureNetwork, insideArguments } from './network.ts';
import {
  logFile,
  logTail,
  type Program,
  type RunningProcess,
  runningPrograms,
  startProgram,
  stopProcesses,
} from './processes.ts';
import { type ProgramName, programs } from './programs.ts';
import { type NodePaths, nodePaths, writeSettings } from './settings.ts';
import { waitFor } from './wait.ts';

/** Images that the cluster itself runs. */
const ownImages = ['pause', 'coredns'] as const;
/** Families whose programs are for images, tests and benchmarks. */
const elsewhere = ['temporal', 'coredns', 'otel-collector', 'vegeta'];
const nodeFamilies = toolFamilies.filter(({ name }) => !elsewhere.includes(name));

/** Brings the cluster up, from nothing, from a killed `up`, from a reboot, or when some of it runs. */
export async function startCluster(places: Layout, say: Progress): Promise<void> {
  const lock = await takeLock(places.state);
  try {
    await buildToolchain(say, nodeFamilies);
    const node = await prepare(places);
    await startFoundation(node, say);
    const api = new Api(node.pki);
    await Promise.all([ensureOwnImages(node, say), startControlPlane(node, api, say)]);
    await waitForNode(node, api, say);
    // Nothing waits for it: it is the one program that a start can end without.
    await ensurePrograms(node, ['metrics-server']);
    api.close();
    writeSecret(places.kubeconfig, readFileSync(node.pki.kubeconfig('admin'), 'utf8'));
  } finally {
    lock.release();
  }
}

/** What the steps of a start share. */
interface Node {
  readonly paths: NodePaths;
  readonly pki: Pki;
  readonly programs: Record<ProgramName, Program>;
  readonly groups: readonly string[];
  readonly images: { readonly pause: string; readonly coredns: string };
}

async function prepare({ state, run: runFolder, cache }: Layout): Promise<Node> {
  for (const folder of [state, runFolder, join(cache, 'registry')]) mkdirSync(folder, { recursive: true, mode: 0o711 });
  const images = {
    pause: imageReference('pause', { registry: registryAddress }),
    coredns: imageReference('coredns', { registry: registryAddress }),
  };
  const paths = nodePaths(state, runFolder);
  const [pki] = await Promise.all([ensureCertificates(state), ensureNetwork()]);
  writeSettings(paths, pki, images, join(cache, 'registry'));
  return { paths, pki, images, programs: programs(paths, pki), groups: ensureOwnGroup() };
}

/** All that needs no API server, at once. */
async function startFoundation(node: Node, say: Progress): Promise<void> {
  await ensurePrograms(node, ['forward', 'registry', 'etcd', 'containerd', 'kube-apiserver']);
  say('started: forwarder, registry, etcd, containerd, API server');
}

async function startControlPlane(node: Node, api: Api, say: Progress): Promise<void> {
  await waitFor(() => api.isReady(), {
    what: `the API server answers at ${apiAddress}`,
    deadline: 60_000,
    cause: () => explain(node, ['etcd', 'kube-apiserver', 'forward']),
  });
  say('API server is ready');
  await ensurePrograms(node, [
    'kube-controller-manager',
    'kubelet',
    'kube-scheduler',
    'kube-proxy',
    'network-policy',
    'storage',
  ]);
  await applyAddons(api, node.images, readFileSync(node.pki.certificate('ca')));
  say('started: controller manager, kubelet, scheduler, proxy, network policies, storage; add-ons applied');
}

/** Starts what does not run, and restarts what runs with other arguments or settings than it would get now. */
async function ensurePrograms(node: Node, names: readonly ProgramName[]): Promise<void> {
  const { state } = node.paths;
  const running = runningPrograms(state).filter(({ name }) => names.some((each) => each === name));
  await stopProcesses(
    running.filter((each) => !isCurrent(node, each)),
    10_000,
  );
  const kept = new Set(running.filter((each) => isCurrent(node, each)).map(({ name }) => name));
  for (const name of names) {
    if (!kept.has(name)) startProgram(node.programs[name], state, node.groups);
  }
}

/** A process may also live on in a namespace whose name has been given to a new one: nobody reaches it there. */
function isCurrent(node: Node, { name, digest, network }: RunningProcess): boolean {
  const program = node.programs[name as ProgramName];
  const home = statSync(program.outside ? '/proc/self/ns/net' : namespacePath).ino;
  return digest === program.digest && network === home;
}

async function waitForNode(node: Node, api: Api, say: Progress): Promise<void> {
  interface NodeStatus {
    readonly status: { readonly conditions?: readonly { type: string; status: string; message: string }[] };
  }
  const readCondition = async () => {
    const found = await api.get<NodeStatus>(`/api/v1/nodes/${nodeName}`).catch(() => undefined);
    return found?.status.conditions?.find(({ type }) => type === 'Ready');
  };
  await waitFor(async () => (await readCondition())?.status === 'True', {
    what: `node ${nodeName} is Ready`,
    deadline: 60_000,
    cause: async () =>
      `${(await readCondition())?.message ?? 'it is not registered'}\n${explain(node, ['kubelet', 'containerd'])}`,
  });
  say(`node ${nodeName} is Ready`);
  await run('nsenter', insideArguments([process.execPath, join(import.meta.dirname, 'dns-probe.ts')]), {
    env: { NODE_NO_WARNINGS: '1' },
    deadline: 90_000,
  }).catch((error: unknown) => {
    throw new Error(
      `cluster DNS at ${network.dnsService} does not answer; see the pod of kube-system/coredns\n${error}`,
    );
  });
  say('cluster DNS answers');
}

/** The images that the node needs before it can run any other; built and pushed only when the registry has them not. */
async function ensureOwnImages(node: Node, say: Progress): Promise<void> {
  await waitFor(
    () =>
      fetch(`http://${registryAddress}/v2/`).then(
        (answer) => answer.ok,
        () => false,
      ),
    {
      what: `the image registry answers at ${registryAddress}`,
      deadline: 30_000,
      cause: () => explain(node, ['registry', 'forward']),
    },
  );
  const missing: string[] = [];
  for (const name of ownImages) {
    if (!(await isPushed(node.images[name]))) missing.push(name);
  }
  if (missing.length > 0) {
    say(`images to build: ${missing.join(', ')}`);
    const main = join(import.meta.dirname, '../../images/main.ts');
    for (const step of ['build', 'push']) {
      await run(process.execPath, [main, step, ...missing], { deadline: 15 * 60_000 });
    }
    say(`images built and pushed: ${missing.join(', ')}`);
  }
  await pullEarly(node);
}

/** Unpacks the node's images while the API server still starts; the kubelet would pull them one after the other. */
async function pullEarly({ paths, images }: Node): Promise<void> {
  const ctr = ['ctr', '--address', paths.containerdSocket, '--namespace', 'k8s.io', 'images', 'pull', '--plain-http'];
  // A failure here is no failure of the start: the kubelet pulls again, and its events say why it can't.
  await Promise.all(Object.values(images).map((image) => succeeds('nsenter', insideArguments([...ctr, image]))));
}

/** True when the registry has the manifest of a reference `host/repository:tag`. */
async function isPushed(reference: string): Promise<boolean> {
  const [, repository, tag] = reference.match(/^[^/]+\/(.+):([^:]+)$/) ?? [];
  const accept = 'application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json';
  const answer = await fetch(`http://${registryAddress}/v2/${repository}/manifests/${tag}`, {
    method: 'HEAD',
    headers: { accept },
  });
  return answer.ok;
}

/** Which of the programs are dead, with the end of what they said. */
function explain(node: Node, names: readonly ProgramName[]): string {
  const { state } = node.paths;
  const running = runningPrograms(state);
  const dead = names.filter((name) => !running.some((each) => each.name === name));
  const suspects = dead.length > 0 ? dead : names;
  return suspects
    .map(
      (name) =>
        `${name} ${dead.includes(name) ? 'has ended' : 'runs'}; ${logFile(state, name)} ends:\n${logTail(state, name)}`,
    )
    .join('\n');
}
