import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { ObjectStore } from '../object-store/index.ts';
import { environmentOf, image, type Manifest, mountsOf, slmOf, TestRegion } from '../testing.ts';
import { modelsBucket } from '../training/index.ts';
import { Slm, type SlmModel } from './slm.ts';

test('the Service is in front of the head, whichever renderer made it', () => {
  for (const renderer of ['pods', 'kuberay'] as const) {
    const region = new TestRegion();
    const slm = new Slm(region.chart('runtime'), 'slm', { image: image('ray-slm'), plan: region.plan, renderer });
    assert.equal(slm.url, 'https://slm.north-runtime.svc:8000/v1');
    assert.deepEqual(region.find('Service', 'slm').spec.selector, {
      'app.kubernetes.io/instance': 'slm',
      'app.kubernetes.io/component': 'head',
    });
  }
});

const bundled = {
  path: '/models/bundled.gguf',
  slots: 4,
  minReplicas: 1,
  maxReplicas: 1,
  targetOngoing: 3,
};

test('models have options of their own, the same whichever renderer made them', () => {
  const models = [
    { name: 'large', path: '/models/large.gguf', slots: 8, minReplicas: 2, maxReplicas: 6, threads: 4, cpus: 2 },
    { name: 'small', targetOngoingRequests: 2 },
  ];
  for (const renderer of ['pods', 'kuberay'] as const) {
    const region = new TestRegion();
    const props = { image: image('ray-slm'), plan: region.plan, renderer, models, queue: 8, batchQueue: 32 };
    const slm = new Slm(region.chart('runtime'), 'slm', props);
    assert.deepEqual([slm.model, slm.models], ['large', ['large', 'small']]);
    const pod =
      renderer === 'pods'
        ? region.find('Deployment', 'slm-head').spec.template
        : region.find('RayService', 'slm').spec.rayClusterConfig.headGroupSpec.template;
    const env = environmentOf({ spec: { template: pod } } as Manifest);
    assert.deepEqual(JSON.parse(String(env.SLM_MODELS)), [
      { ...models[0], targetOngoing: 6 },
      { ...bundled, name: 'small', targetOngoing: 2 },
    ]);
    assert.deepEqual([env.SLM_QUEUE, env.SLM_BATCH_QUEUE], ['8', '32']);
  }
});

test('wrong models say what to do', () => {
  const region = new TestRegion();
  const slm = (id: string, models: readonly SlmModel[]) => () =>
    new Slm(region.chart('runtime'), id, { image: image('ray-slm'), plan: region.plan, models });
  assert.throws(slm('a', []), {
    message: `models is "[]"; allowed: at least one model. Leave it out, or give [{ name: 'soma-tiny' }].`,
  });
  assert.throws(slm('b', [{ name: 'x' }, { name: 'x' }]), {
    message: 'models is "x"; allowed: each name once. Requests name their model: rename one.',
  });
  assert.throws(slm('c', [{ name: 'x', minReplicas: 3, maxReplicas: 2 }]), {
    message: 'models[0].maxReplicas is 2; allowed: a whole number from 3 to 64. Use for instance 3.',
  });
});

test('the head has the model, the certificate and no key', () => {
  const region = new TestRegion();
  const slm = slmOf(region);
  new DeploymentWorkload(region.chart('services'), 'worker', {
    ...{ product: 'worker', instance: 'worker', component: 'server', name: 'worker', image: image('worker') },
    resources: { cpu: '50m', memory: '64Mi' },
    connections: [slm],
    probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
  });
  const head = region.find('Deployment', 'slm-head');
  const env = environmentOf(head);
  assert.deepEqual(JSON.parse(String(env.SLM_MODELS)), [
    { ...bundled, name: 'soma-tiny' },
    { ...bundled, name: 'soma-tiny-q8', quantize: 'q8_0' },
  ]);
  assert.equal(env.SLM_API_KEY_FILE, undefined);
  assert.equal(env.SLM_WORKLOAD_AUDIENCE, 'somagent-slm');
  assert.equal(env.SLM_WORKLOAD_CALLERS, 'system:serviceaccount:north-services:worker');
  const worker = region.find('Deployment', 'worker');
  assert.equal(environmentOf(worker).SLM_TOKEN_FILE, '/var/run/secrets/somagent/slm/token');
  assert.equal(mountsOf(head)['/secrets/slm-tls'], 'slm-tls');
  assert.deepEqual(head.spec.template.spec.containers[0].readinessProbe.httpGet, {
    scheme: 'HTTPS',
    port: 8000,
    path: '/healthz',
  });
});

test('every node reads promoted models, as a reader of its own, and can verify them', () => {
  for (const renderer of ['pods', 'kuberay'] as const) {
    const region = new TestRegion();
    const { plan } = region;
    const shared = { bootstrapImage: image('bootstrap'), plan };
    const store = new ObjectStore(region.chart('data'), 'store', {
      ...shared,
      image: image('object-store'),
      buckets: [modelsBucket],
    });
    plan.signingKey('training-lineage', 'Ed25519', 'north-services');
    const workers = { workers: 1, renderer, promoted: store, promotedPlaces: 2 };
    new Slm(region.chart('runtime'), 'slm', { image: image('ray-slm'), plan, ...workers });
    const cluster = () => region.find('RayService', 'slm').spec.rayClusterConfig;
    const templates =
      renderer === 'pods'
        ? ['slm-head', 'slm-worker'].map((name) => region.find('Deployment', name).spec.template)
        : [cluster().headGroupSpec.template, cluster().workerGroupSpecs[0].template];
    for (const template of templates) {
      const pod = { spec: { template } } as Manifest;
      const mounts = mountsOf(pod);
      assert.equal(environmentOf(pod).SLM_PROMOTED_URL, 'https://store.north-data.svc:7070/models');
      assert.equal(environmentOf(pod).SLM_PROMOTED_PLACES, '2');
      assert.deepEqual(
        ['credentials', 'ca', 'key'].map((name) => mounts[`/secrets/promoted/${name}`]),
        ['store-user-slm', 'region-ca-cert', 'training-lineage-public'],
      );
    }
    const egress = JSON.stringify(region.find('NetworkPolicy', 'slm').spec.egress);
    assert.match(egress, /"port":7070/);
  }
});

test('a store without the bucket of models is refused', () => {
  const region = new TestRegion();
  const { plan } = region;
  const images = { image: image('object-store'), bootstrapImage: image('bootstrap') };
  const store = new ObjectStore(region.chart('data'), 'store', { ...images, plan, buckets: [] });
  assert.throws(
    () => new Slm(region.chart('runtime'), 'slm', { image: image('ray-slm'), plan, promoted: store }),
    /user of bucket models is "slm"/,
  );
});

test('a wrong number of places for promoted models says what to do', () => {
  const region = new TestRegion();
  const { plan } = region;
  const images = { image: image('object-store'), bootstrapImage: image('bootstrap') };
  const promoted = new ObjectStore(region.chart('data'), 'store', { ...images, plan, buckets: [modelsBucket] });
  plan.signingKey('training-lineage', 'Ed25519', 'north-services');
  const props = { image: image('ray-slm'), plan, promoted, promotedPlaces: 0 };
  assert.throws(() => new Slm(region.chart('runtime'), 'slm', props), {
    message: 'promotedPlaces is 0; allowed: a whole number from 1 to 1024. Use for instance 1.',
  });
});

test('a wrong number of slots says what to do', () => {
  const region = new TestRegion();
  assert.throws(
    () =>
      new Slm(region.chart('runtime'), 'slm', {
        image: image('ray-slm'),
        plan: region.plan,
        models: [{ name: 'x', slots: 65 }],
      }),
    { message: 'models[0].slots is 65; allowed: a whole number from 1 to 64. Use for instance 64.' },
  );
});

test('both renderers let it fetch the keys of the cluster, as an account of its own', () => {
  for (const renderer of ['pods', 'kuberay'] as const) {
    const region = new TestRegion();
    new Slm(region.chart('runtime'), 'slm', { image: image('ray-slm'), plan: region.plan, renderer });
    const pod =
      renderer === 'pods'
        ? region.find('Deployment', 'slm-head').spec.template.spec
        : region.find('RayService', 'slm').spec.rayClusterConfig.headGroupSpec.template.spec;
    assert.equal(pod.serviceAccountName, 'slm');
    assert.equal(
      pod.volumes.some(({ name }: Manifest) => name === 'token-kubernetes'),
      true,
    );
    const ways = region.find('NetworkPolicy', 'slm').spec.egress.filter(({ to }: Manifest) => to[0].ipBlock);
    assert.equal(ways.length, 1);
  }
});
