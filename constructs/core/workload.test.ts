import assert from 'node:assert/strict';
import { test } from 'node:test';
import { App, Chart } from 'cdk8s';
import { image, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import { workloadTokenPath } from './pod.ts';
import { DeploymentWorkload, type DeploymentWorkloadProps, JobWorkload } from './workload.ts';

const resources = { cpu: '50m', memory: '64Mi' };
const base: DeploymentWorkloadProps = {
  product: 'demo',
  instance: 'demo',
  component: 'server',
  image: image('demo'),
  resources,
  probes: { readiness: { scheme: 'https', port: 8443, path: '/readyz' } },
};

function deployment(props: Partial<DeploymentWorkloadProps> = {}): { region: TestRegion; object: Manifest } {
  const region = new TestRegion();
  new DeploymentWorkload(region.chart('services'), 'demo', { ...base, ...props });
  return { region, object: region.find('Deployment', 'demo-server') };
}

test('a pod is secure by default', () => {
  const pod = deployment().object.spec.template.spec;
  assert.deepEqual(pod.securityContext, {
    runAsNonRoot: true,
    runAsUser: 10001,
    runAsGroup: 10001,
    fsGroup: 10001,
    fsGroupChangePolicy: 'OnRootMismatch',
    seccompProfile: { type: 'RuntimeDefault' },
  });
  assert.deepEqual(pod.containers[0].securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  });
  assert.equal(pod.automountServiceAccountToken, false);
  assert.equal(pod.enableServiceLinks, false);
  assert.equal(pod.serviceAccountName, undefined);
  assert.deepEqual(pod.containers[0].resources, {
    requests: { cpu: '50m', memory: '64Mi' },
    limits: { cpu: '2', memory: '64Mi' },
  });
});

test('labels, selector and network policy belong together', () => {
  const { region, object } = deployment();
  assert.deepEqual(object.metadata.labels, {
    'app.kubernetes.io/name': 'demo',
    'app.kubernetes.io/instance': 'demo',
    'app.kubernetes.io/component': 'server',
    'app.kubernetes.io/part-of': 'somagent',
    'app.kubernetes.io/managed-by': 'somagent',
    'somagent.dev/region': 'north',
  });
  assert.equal(object.metadata.namespace, 'north-services');
  assert.deepEqual(object.spec.selector.matchLabels, {
    'app.kubernetes.io/instance': 'demo',
    'app.kubernetes.io/component': 'server',
  });
  assert.equal(object.spec.template.metadata.labels['somagent.dev/network'], 'demo-server');
  const policy = region.find('NetworkPolicy', 'demo-server');
  assert.deepEqual(policy.spec.podSelector.matchLabels, { 'somagent.dev/network': 'demo-server' });
});

test('several replicas get a disruption budget and are spread; one does not', () => {
  const { region, object } = deployment({ replicas: 2 });
  assert.equal(region.find('PodDisruptionBudget', 'demo-server').spec.maxUnavailable, 1);
  assert.deepEqual(
    object.spec.template.spec.topologySpreadConstraints.map((constraint: Manifest) => constraint.topologyKey),
    ['kubernetes.io/hostname', 'topology.kubernetes.io/zone'],
  );
  const single = deployment();
  assert.deepEqual(
    single.region
      .manifests()
      .map(({ kind }) => kind)
      .sort(),
    ['Deployment', 'NetworkPolicy'],
  );
});

test('probes follow the readiness probe unless they are given', () => {
  const [container] = deployment().object.spec.template.spec.containers;
  const httpGet = { scheme: 'HTTPS', port: 8443, path: '/readyz' };
  assert.deepEqual(container.readinessProbe, { httpGet, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 3 });
  assert.deepEqual(container.startupProbe, { httpGet, periodSeconds: 2, timeoutSeconds: 3, failureThreshold: 150 });
  assert.equal(container.livenessProbe, undefined);
});

test('a job is renamed when its spec changes and only then', () => {
  const name = (tag: string) => {
    const region = new TestRegion();
    const job = new JobWorkload(region.chart('data'), 'job', {
      product: 'demo',
      instance: 'demo',
      component: 'migrate',
      image: `${image('demo')}${tag}`,
      resources,
    });
    assert.equal(region.find('Job', 'demo-migrate').metadata.name, job.jobName);
    return job.jobName;
  };
  assert.match(name('a'), /^demo-migrate-[0-9a-f]{10}$/);
  assert.equal(name('a'), name('a'));
  assert.notEqual(name('a'), name('b'));
});

test('the same secret at the same path is mounted once; two things at one path are refused', () => {
  const ca = { path: '/secrets/ca', secret: { name: 'region-ca-cert', namespace: 'north-services' } };
  assert.deepEqual(mountsOf(deployment({ secrets: [ca, ca] }).object), {
    '/secrets/ca': 'region-ca-cert',
    '/tmp': 'scratch',
  });
  const other = { path: '/secrets/ca', secret: { name: 'other', namespace: 'north-services' } };
  assert.throws(() => deployment({ secrets: [ca, other] }), {
    message: 'mount path of server is "/secrets/ca"; allowed: each path once. Mount one of the two elsewhere.',
  });
});

test('a workload token is for one server, brief, and of an account that has no right', () => {
  const { region, object } = deployment({ workloadTokens: [{ target: 'identity' }, { target: 'identity' }] });
  const pod = object.spec.template.spec;
  assert.equal(pod.automountServiceAccountToken, false);
  assert.equal(pod.serviceAccountName, 'demo-server');
  assert.equal(region.find('ServiceAccount', 'demo-server').automountServiceAccountToken, false);
  assert.deepEqual(
    pod.volumes.filter((volume: Manifest) => volume.projected),
    [
      {
        name: 'token-identity',
        projected: {
          defaultMode: 0o440,
          sources: [{ serviceAccountToken: { audience: 'somagent-identity', expirationSeconds: 600, path: 'token' } }],
        },
      },
    ],
  );
  const mount = pod.containers[0].volumeMounts.find(({ name }: Manifest) => name === 'token-identity');
  assert.deepEqual(mount, { name: 'token-identity', mountPath: '/var/run/secrets/somagent/identity', readOnly: true });
  assert.equal(workloadTokenPath('identity'), '/var/run/secrets/somagent/identity/token');
  const kinds = region.manifests().map(({ kind }) => kind);
  assert.deepEqual(
    kinds.filter((kind) => kind === 'Role' || kind === 'RoleBinding'),
    [],
  );
});

test('one that verifies workloads gets a token for the API server and its authority', () => {
  const pod = deployment({ verifiesWorkloads: true }).object.spec.template.spec;
  const [volume] = pod.volumes.filter(({ projected }: Manifest) => projected);
  assert.deepEqual(volume.projected.sources, [
    { serviceAccountToken: { expirationSeconds: 600, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
  ]);
  assert.equal(pod.serviceAccountName, 'demo-server');
});

test('a construct outside a region says where it belongs', () => {
  const chart = new Chart(new App(), 'plain');
  assert.throws(() => new DeploymentWorkload(chart, 'demo', base), {
    message:
      'construct plain/demo stands in no RegionChart, so it has no region and no namespace. ' +
      'Create it inside `new RegionChart(app, id, { region, plane })`.',
  });
});
