import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodNetwork } from '../core/pod-network.ts';
import { ObjectStore } from '../object-store/object-store.ts';
import { environmentOf, image, mountsOf, TestRegion } from '../testing.ts';
import { Policy, policyBucket } from './policy.ts';

function policy(tag = image('policy')) {
  const region = new TestRegion();
  const store = new ObjectStore(region.chart('data'), 'object-store', {
    image: image('object-store'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    buckets: [policyBucket],
  });
  return { region, object: new Policy(region.chart('system'), 'policy', { image: tag, plan: region.plan, store }) };
}

const network = (region: TestRegion) =>
  new PodNetwork(region.chart('services'), 'app', { product: 'app', instance: 'app', component: 'app', name: 'app' });

test('a Job signs with a key that lies in its namespace only', () => {
  const { region, object } = policy();
  object.consumer().connect(network(region));
  const job = region.find('Job', 'policy-publish');
  assert.equal(environmentOf(job).OBJECT_STORE_URL, 'https://object-store.north-data.svc:7070/policy');
  assert.equal(mountsOf(job)['/secrets/policy-signing'], 'policy-signing');
  const keys = region.plan.close().secrets.filter(({ name }) => name.startsWith('policy-signing'));
  assert.deepEqual(keys, [
    { kind: 'signing-key', algorithm: 'ES256', name: 'policy-signing', namespaces: ['north-system'] },
    { kind: 'public-key', of: 'policy-signing', name: 'policy-signing-public', namespaces: ['north-services'] },
  ]);
});

test('another corpus is another image, hence another Job', () => {
  assert.notEqual(policy().object.jobName, policy('registry.test/somagent/policy:fedcba9876').object.jobName);
  assert.equal(policy().object.jobName, policy().object.jobName);
});

test('a consumer may read bundles and verify them, and that is all', () => {
  const { region, object } = policy();
  const { env, secrets } = object.consumer().connect(network(region));
  assert.deepEqual(env, {
    POLICY_URL: 'https://object-store.north-data.svc:7070/policy',
    POLICY_CREDENTIALS_DIR: '/secrets/policy',
    POLICY_CA_FILE: '/secrets/ca/ca.crt',
    POLICY_PUBLIC_KEY_FILE: '/secrets/policy-key/public.pem',
    POLICY_CACHE_DIR: '/var/cache/policy',
  });
  assert.deepEqual(
    secrets.map(({ path, secret }) => [path, secret.name]),
    [
      ['/secrets/policy', 'object-store-user-policy-reader'],
      ['/secrets/policy-key', 'policy-signing-public'],
      ['/secrets/ca', 'region-ca-cert'],
    ],
  );
  assert.deepEqual(policyBucket, { name: 'policy', readers: ['policy-reader'], writers: ['policy-publisher'] });
});
