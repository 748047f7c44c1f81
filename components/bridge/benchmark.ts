import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as kubernetes from '@pulumi/kubernetes';
import { plan, render } from '@somagent/stacks/runner/index.ts';
import { Chart } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import { bridgeApp, ChartDeployment } from './index.ts';

/** Objects in all, as charts of the size that a product has. */
const total = 2000;
const perChart = 25;
/** CPU seconds that bridging and rendering them may take. */
const limit = 2;

function chart(app: ReturnType<typeof bridgeApp>, index: number): Chart {
  const product = new Chart(app, `product-${index}`, {
    namespace: `namespace-${index}`,
    labels: { 'app.kubernetes.io/part-of': 'somagent' },
  });
  for (let i = 0; i < perChart; i += 1) {
    if (i % 5 === 0) deployment(product, `server-${i}`);
    else
      new k8s.KubeConfigMap(product, `config-${i}`, {
        metadata: { name: `config-${i}` },
        data: { 'settings.yaml': `number: ${i}\n` },
      });
  }
  return product;
}

function deployment(scope: Chart, name: string): void {
  const labels = { 'app.kubernetes.io/name': name };
  new k8s.KubeDeployment(scope, name, {
    metadata: { name, labels },
    spec: {
      replicas: 2,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          containers: [
            {
              name: 'server',
              image: 'registry.example.com/server:1',
              env: [{ name: 'PORT', value: '8443' }],
              resources: {
                requests: { cpu: k8s.Quantity.fromString('1000m'), memory: k8s.Quantity.fromString('128Mi') },
              },
            },
          ],
        },
      },
    },
  });
}

async function program(): Promise<object> {
  const app = bridgeApp();
  const provider = new kubernetes.Provider('benchmark', {});
  for (let index = 0; index < total / perChart; index += 1) {
    new ChartDeployment(`product-${index}`, { chart: chart(app, index) }, { provider });
  }
  return {};
}

const before = process.cpuUsage();
const started = performance.now();
const planned = await plan(program, { project: 'somagent', stack: 'benchmark', config: {} });
const bridged = process.cpuUsage(before);
const directory = await mkdtemp(join(tmpdir(), 'somagent-benchmark-'));
render(planned, directory);
const used = process.cpuUsage(before);
const wallSeconds = (performance.now() - started) / 1000;
await rm(directory, { recursive: true });
const seconds = (usage: NodeJS.CpuUsage): number => (usage.user + usage.system) / 1e6;
const figures = {
  objects: planned.objects.length,
  bridgeCpuSeconds: seconds(bridged),
  totalCpuSeconds: seconds(used),
  wallSeconds,
  limitCpuSeconds: limit,
};
process.stdout.write(`${JSON.stringify(figures)}\n`);
process.exitCode = figures.totalCpuSeconds <= limit ? 0 : 1;
