import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentOf, image, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import { RayCluster, type RayClusterProps } from './ray-cluster.ts';

function cluster(props: Partial<RayClusterProps> = {}): TestRegion {
  const region = new TestRegion();
  new RayCluster(region.chart('runtime'), 'ray', {
    image: image('ray-slm'),
    plan: region.plan,
    application: {
      name: 'app',
      importPath: 'package.module:app',
      headCommand: ['python3', '-m', 'package.head'],
      port: 8000,
      probes: { readiness: { scheme: 'https', port: 8000, path: '/healthz' } },
    },
    ...props,
  });
  return region;
}

test('as pods: one head that is never doubled, with a token', () => {
  const region = cluster();
  const head = region.find('Deployment', 'ray-head');
  assert.deepEqual(head.spec.strategy, { type: 'Recreate' });
  assert.equal(environmentOf(head).RAY_AUTH_MODE, 'token');
  assert.equal(environmentOf(head).RAY_AUTH_TOKEN_PATH, '/secrets/ray-token/token');
  assert.equal(mountsOf(head)['/secrets/ray-token'], 'ray-ray-token');
  assert.deepEqual(region.manifests().filter(({ kind }) => kind === 'Deployment').length, 1);
});

test('as pods: workers join the head by its name', () => {
  const worker = cluster({ workers: 2 }).find('Deployment', 'ray-worker');
  assert.equal(worker.spec.replicas, 2);
  assert.equal(worker.spec.template.spec.containers[0].command[4], '--address=ray-head.north-runtime.svc:6379');
});

test('for the operator: one RayService whose pods have the same security and environment', () => {
  const region = cluster({ renderer: 'kuberay', workers: 2 });
  const { spec } = region.find('RayService', 'ray');
  assert.deepEqual(spec.rayClusterConfig.authOptions, { mode: 'token' });
  assert.deepEqual(JSON.parse(spec.serveConfigV2), {
    proxy_location: 'HeadOnly',
    http_options: { host: '0.0.0.0', port: 8002 },
    applications: [{ name: 'app', import_path: 'package.module:app', route_prefix: null }],
  });
  assert.equal(spec.rayClusterConfig.enableInTreeAutoscaling, undefined);
  const [group] = spec.rayClusterConfig.workerGroupSpecs;
  assert.equal(group.replicas, 2);
  for (const { template } of [spec.rayClusterConfig.headGroupSpec, group] as Manifest[]) {
    assert.equal(template.spec.securityContext.runAsUser, 10001);
    assert.equal(template.spec.containers[0].securityContext.readOnlyRootFilesystem, true);
    assert.equal(typeof template.spec.containers[0].resources.requests.memory, 'string');
  }
  assert.equal(region.manifests().filter(({ kind }) => kind === 'Deployment').length, 0);
});

test('for the operator: nodes come when replicas find no room', () => {
  const region = cluster({ renderer: 'kuberay', workers: 1, maxWorkers: 4 });
  const { rayClusterConfig } = region.find('RayService', 'ray').spec;
  assert.equal(rayClusterConfig.enableInTreeAutoscaling, true);
  assert.deepEqual(rayClusterConfig.autoscalerOptions.securityContext.capabilities, { drop: ['ALL'] });
  const [group] = rayClusterConfig.workerGroupSpecs;
  assert.deepEqual([group.replicas, group.minReplicas, group.maxReplicas], [1, 1, 4]);
  assert.equal(rayClusterConfig.headGroupSpec.template.spec.automountServiceAccountToken, true);
  assert.equal(group.template.spec.automountServiceAccountToken, false);
});

test('the operator reaches the dashboard and the health of the proxy, and not the application', () => {
  const { ingress } = cluster({ renderer: 'kuberay' }).find('NetworkPolicy', 'ray').spec;
  const operator = ingress.find(({ from }: Manifest) => JSON.stringify(from).includes('kuberay-system'));
  assert.deepEqual(
    operator.ports.map(({ port }: Manifest) => port),
    [8265, 8002],
  );
});

test('both renderers give the same labels to the pods that answer', () => {
  const pods = cluster().find('Deployment', 'ray-head').spec.template.metadata.labels;
  const operator = cluster({ renderer: 'kuberay' }).find('RayService', 'ray').spec.rayClusterConfig.headGroupSpec;
  assert.deepEqual(operator.template.metadata.labels, pods);
});

test('wrong props say what to do', () => {
  assert.throws(() => cluster({ renderer: 'helm' as 'pods' }), {
    message: 'renderer is "helm"; allowed: "pods", "kuberay". Use "pods".',
  });
  assert.throws(() => cluster({ workers: 1, maxWorkers: 2 }), {
    message: 'maxWorkers is "2"; allowed: 1 with the renderer "pods". Set workers to 2, or renderer to "kuberay".',
  });
  assert.throws(() => cluster({ workers: 2, maxWorkers: 1 }), {
    message: 'maxWorkers is 1; allowed: a whole number from 2 to 100. Use for instance 2.',
  });
  assert.throws(() => cluster({ workers: -1 }), {
    message: 'workers is -1; allowed: a whole number from 0 to 100. Use for instance 0.',
  });
});
