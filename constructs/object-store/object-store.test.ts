import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodNetwork } from '../core/pod-network.ts';
import { environmentOf, image, mountsOf, TestRegion } from '../testing.ts';
import { ObjectStore } from './object-store.ts';

function objectStore() {
  const region = new TestRegion();
  const object = new ObjectStore(region.chart('data'), 'object-store', {
    image: image('object-store'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    buckets: [{ name: 'policy', readers: ['policy-reader'], writers: ['policy-publisher'] }],
  });
  return { region, object };
}

test('the server has TLS, a key of its own for the administrator and a volume', () => {
  const { region } = objectStore();
  const server = region.find('StatefulSet', 'object-store');
  const { command } = server.spec.template.spec.containers[0];
  assert.deepEqual(command.slice(command.indexOf('--cert'), command.indexOf('--cert') + 4), [
    '--cert',
    '/secrets/tls/tls.crt',
    '--key',
    '/secrets/tls/tls.key',
  ]);
  assert.deepEqual(command.slice(0, 2), ['/bin/sh', '-c']);
  assert.match(command[2], /while sleep 3600; do kill -HUP \$server/);
  assert.deepEqual(environmentOf(server).ROOT_SECRET_KEY, {
    secretKeyRef: { name: 'object-store-admin', key: 'password' },
  });
  assert.equal(mountsOf(server)['/secrets/tls'], 'object-store-tls');
  assert.equal(server.spec.volumeClaimTemplates[0].spec.resources.requests.storage, '2Gi');
  assert.deepEqual(server.spec.template.spec.containers[0].resources, {
    requests: { cpu: '20m', memory: '64Mi' },
    limits: { cpu: '2', memory: '192Mi' },
  });
});

test('a Job makes users and rights; it alone has every key', () => {
  const { region } = objectStore();
  const plan = region.find('ConfigMap', 'object-store-plan');
  assert.deepEqual(JSON.parse(plan.data['plan.json']), {
    users: ['policy-publisher', 'policy-reader'],
    buckets: [{ readers: ['policy-reader'], writers: ['policy-publisher'], name: 'policy' }],
  });
  const job = region.find('Job', 'object-store-buckets');
  assert.deepEqual(mountsOf(job), {
    '/secrets/admin': 'object-store-admin',
    '/secrets/ca': 'region-ca-cert',
    '/secrets/users/policy-publisher': 'object-store-user-policy-publisher',
    '/secrets/users/policy-reader': 'object-store-user-policy-reader',
    '/etc/soma': plan.metadata.name,
    '/tmp': 'scratch',
  });
});

test('a user of a bucket gets its own key in its own namespace, and the way there', () => {
  const { region, object } = objectStore();
  const client = new PodNetwork(region.chart('services'), 'client', {
    product: 'app',
    instance: 'app',
    component: 'app',
    name: 'app',
  });
  const { env, secrets } = object.bucketUser('policy', 'policy-reader').connect(client);
  assert.equal(env.OBJECT_STORE_URL, 'https://object-store.north-data.svc:7070/policy');
  assert.deepEqual(secrets[0], {
    path: '/secrets/object-store',
    secret: { name: 'object-store-user-policy-reader', namespace: 'north-services' },
  });
  const [admitted] = region
    .find('NetworkPolicy', 'object-store')
    .spec.ingress.filter(({ from }: { from: { podSelector: object }[] }) =>
      JSON.stringify(from).includes('north-services'),
    );
  assert.deepEqual(admitted.ports, [{ protocol: 'TCP', port: 7070 }]);
});

test('a user that no bucket names is refused', () => {
  const { object } = objectStore();
  assert.throws(
    () => object.bucketUser('policy', 'stranger'),
    /user of bucket policy.*stranger.*policy-reader, policy-publisher/s,
  );
  assert.throws(() => object.bucketUser('other', 'policy-reader'), /no user yet/);
});
