import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { imageReference } from '@somagent/images';
import { run } from './command.ts';
import { type Layout, registryAddress } from './layout.ts';
import { Api, type KubernetesObject } from './node/api.ts';
import { Pki } from './node/certificates.ts';
import { cpuSeconds } from './node/cgroups.ts';
import { insideArguments } from './node/network.ts';
import { stopCluster } from './node/stop.ts';
import type { Progress } from './progress.ts';

/** One start, in seconds since the command. */
interface Run {
  readonly api: number;
  /** The pod answers over HTTP at its Service's name: the API, DNS, and Services all work. */
  readonly app: number;
  /** `up` has ended, which includes DNS. */
  readonly up: number;
  /** CPU seconds of the cluster and of `up` until then. */
  readonly cpu: number;
}

const namespace = 'benchmark';

/**
 * Measures what minikube publishes: from the command until API, DNS and an app pod answer, caches warm, each run from
 * nothing. The app is deployed as soon as the API server takes it. Leaves the cluster up.
 */
export async function benchmark(places: Layout, say: Progress, flags: ReadonlySet<string>): Promise<void> {
  const asked = [...flags].find((flag) => flag.startsWith('--runs='))?.slice('--runs='.length) ?? '3';
  const count = Number(asked);
  if (!Number.isInteger(count) || count < 1) throw new Error(`--runs=${asked}: has to be a whole number from 1`);
  const runs: Run[] = [];
  for (let index = 1; index <= count; index += 1) {
    await stopCluster(places, () => {});
    const result = await measure(places);
    say(
      `run ${index}: API ${result.api.toFixed(1)} s, app ${result.app.toFixed(1)} s, all ${total(result).toFixed(1)} s, CPU ${result.cpu.toFixed(1)} s`,
    );
    runs.push(result);
  }
  await deleteApp(places);
  const best = Math.min(...runs.map(total));
  const median = runs.map(total).sort((a, b) => a - b)[Math.floor(runs.length / 2)] ?? best;
  const text = `command → API, DNS and app pod answering: median ${median.toFixed(1)} s, best ${best.toFixed(1)} s of ${count} runs\n`;
  process.stdout.write(flags.has('--json') ? `${JSON.stringify({ median, best, runs })}\n` : text);
}

const total = ({ app, up }: Run): number => Math.max(app, up);

async function measure(places: Layout): Promise<Run> {
  const start = performance.now();
  const cpuBefore = ownCpuSeconds();
  const since = (): number => (performance.now() - start) / 1000;
  const up = run(process.execPath, [join(import.meta.dirname, 'main.ts'), 'up'], { deadline: 180_000 }).then(since);
  const app = deployAndProbe(places, since);
  const [upTime, times] = await Promise.all([up, app]);
  return { ...times, up: upTime, cpu: cpuSeconds() + ownCpuSeconds() - cpuBefore };
}

/** CPU seconds of this process and of the commands that it has waited for. */
function ownCpuSeconds(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  const ticksPerSecond = 100;
  // Fields 14 to 17: user and system time, own and of children.
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15);
  return fields.reduce((sum, ticks) => sum + Number(ticks), 0) / ticksPerSecond;
}

async function deployAndProbe({ state }: Layout, since: () => number): Promise<Pick<Run, 'api' | 'app'>> {
  const pki = new Pki(state);
  // The last file that a start writes before it starts the API server.
  while (!existsSync(pki.encryptionConfiguration)) await sleep(20);
  const api = new Api(pki);
  while (!(await api.isReady())) await sleep(50);
  const apiTime = since();
  for (const [collection, object] of objects()) await api.apply(collection, object);
  api.close();
  await run('nsenter', insideArguments([process.execPath, join(import.meta.dirname, 'bench-probe.ts'), url]), {
    deadline: 120_000,
  });
  return { api: apiTime, app: since() };
}

async function deleteApp({ state }: Layout): Promise<void> {
  const api = new Api(new Pki(state));
  await api.delete(`/api/v1/namespaces/${namespace}`);
  api.close();
}

const url = `http://app.${namespace}.svc.cluster.local:8080/health`;

/** CoreDNS' image once more, for its health page: an image of a few megabytes that is in the registry anyway. */
function objects(): [collection: string, object: KubernetesObject][] {
  const image = imageReference('coredns', { registry: registryAddress });
  const labels = { 'app.kubernetes.io/name': 'app' };
  const container = {
    name: 'app',
    image,
    args: ['-conf', '/etc/app/Corefile'],
    ports: [{ containerPort: 8080 }],
    resources: { requests: { cpu: '10m', memory: '32Mi' }, limits: { memory: '128Mi' } },
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    },
    volumeMounts: [{ name: 'configuration', mountPath: '/etc/app' }],
  };
  const spec = {
    automountServiceAccountToken: false,
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [container],
    volumes: [{ name: 'configuration', configMap: { name: 'app' } }],
  };
  const metadata = { name: 'app', namespace };
  const core = `/api/v1/namespaces/${namespace}`;
  return [
    [
      '/api/v1/namespaces',
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace, labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
      },
    ],
    [
      `${core}/configmaps`,
      { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { Corefile: '.:1053 {\n  health :8080\n}\n' } },
    ],
    [
      `${core}/services`,
      { apiVersion: 'v1', kind: 'Service', metadata, spec: { selector: labels, ports: [{ port: 8080 }] } },
    ],
    [
      `/apis/apps/v1/namespaces/${namespace}/deployments`,
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata,
        spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec } },
      },
    ],
  ];
}
