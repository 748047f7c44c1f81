import * as kubernetes from '@pulumi/kubernetes';
import { bridgeApp, ChartDeployment } from '@somagent/components';
import { imageReference } from '@somagent/images';
import { ApiObject, Chart } from 'cdk8s';
import { type ApplyOptions, apply, destroy, type Program, type Reporter } from '../../stacks/runner/index.ts';
import { kubeconfig } from './kubectl.ts';

/** What a {@link smallProgram} declares: a namespace, settings, and one Deployment that can be made to fail. */
export interface SmallProgram {
  readonly namespace: string;
  /** Number of ConfigMaps. @default 2 */
  readonly settings?: number;
  readonly image?: string;
  readonly command?: readonly string[];
  /** CPU request of the pod. @default '10m' */
  readonly cpu?: string;
  /** Name of a Secret that the pod wants. */
  readonly secret?: string;
  /** Further objects of the chart. */
  readonly extra?: readonly { readonly apiVersion: string; readonly kind: string; readonly metadata: object }[];
}

const waiting = ['node', '-e', 'setInterval(() => {}, 1e6)'];

function deployment(chart: Chart, props: SmallProgram): void {
  const labels = { app: 'small' };
  const container = {
    name: 'main',
    image: props.image ?? imageReference('node', { registry: 'localhost:5000' }),
    command: props.command ?? waiting,
    resources: { requests: { cpu: props.cpu ?? '10m', memory: '32Mi' } },
    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
    ...(props.secret !== undefined && { envFrom: [{ secretRef: { name: props.secret } }] }),
  };
  const spec = {
    terminationGracePeriodSeconds: 0,
    automountServiceAccountToken: false,
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [container],
  };
  new ApiObject(chart, 'deployment', {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'small' },
    spec: {
      replicas: 1,
      minReadySeconds: 4,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec },
    },
  });
}

/** A Pulumi program small enough to break on purpose, built with the same bridge as the platform's. */
export function smallProgram(props: SmallProgram): Program {
  return async () => {
    const provider = new kubernetes.Provider('small', {});
    const app = bridgeApp();
    const outer = new Chart(app, 'namespace');
    const metadata = { name: props.namespace };
    new ApiObject(outer, 'namespace', { apiVersion: 'v1', kind: 'Namespace', metadata });
    const chart = new Chart(app, 'small', { namespace: props.namespace });
    for (let index = 0; index < (props.settings ?? 2); index += 1) {
      const name = `settings-${index}`;
      new ApiObject(chart, name, {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name },
        data: { index: `${index}` },
      });
    }
    deployment(chart, props);
    for (const [index, extra] of (props.extra ?? []).entries()) new ApiObject(chart, `extra-${index}`, extra);
    const first = new ChartDeployment('small-namespace', { chart: outer }, { provider });
    new ChartDeployment('small', { chart }, { provider, dependsOn: first });
    return { settings: props.settings ?? 2 };
  };
}

/** Collects what a runner tells. */
export class Lines implements Reporter {
  readonly lines: string[] = [];
  line(text: string): void {
    this.lines.push(text);
  }
}

/** Options of a run of the program of stack `stack` on the cluster under test. */
export const runOptions = (stack: string, timeoutSeconds = 60): ApplyOptions & { readonly reporter: Lines } => ({
  project: 'somagent',
  stack,
  config: {},
  kubeconfig,
  reporter: new Lines(),
  timeoutSeconds,
});

export const applySmall = (props: SmallProgram, timeoutSeconds?: number) =>
  apply(smallProgram(props), runOptions(props.namespace, timeoutSeconds));

export const destroySmall = (namespace: string) => destroy([], runOptions(namespace));

/** `node tests/support/small-program.ts <props as JSON>`: for tests that kill the runner. */
if (import.meta.main) await applySmall(JSON.parse(process.argv[2] ?? '{}') as SmallProgram);
