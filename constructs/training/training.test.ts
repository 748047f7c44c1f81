import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ObjectStore } from '../object-store/index.ts';
import { Postgres } from '../postgres/index.ts';
import {
  bootstrapOf,
  environmentOf,
  governanceOf,
  image,
  kafkaOf,
  keycloakOf,
  type Manifest,
  mountsOf,
  postgresOf,
  TestRegion,
} from '../testing.ts';
import { modelsBucket, Training } from './index.ts';

function trainingOf(buckets = [modelsBucket]): TestRegion {
  const region = new TestRegion();
  const { plan } = region;
  const postgres = postgresOf(region);
  const keycloak = keycloakOf(region, postgres);
  const users = ['training', 'gateway', 'identity'].map((name) => ({ name }));
  const kafka = kafkaOf(region, 'kafka', { declared: { topics: [], users, acls: [] } });
  const { control, policy } = governanceOf(region, postgres, keycloak, kafka);
  const shared = { bootstrapImage: image('bootstrap'), plan };
  const own = new Postgres(region.chart('data'), 'records', {
    ...shared,
    image: image('postgres'),
    databases: [
      { name: 'training', owner: 'training' },
      { name: 'sessions', owner: 'sessions', readers: ['sessions_training'] },
    ],
  });
  const store = new ObjectStore(region.chart('data'), 'models-store', {
    ...shared,
    image: image('object-store'),
    buckets,
  });
  new Training(region.chart('services'), 'training', {
    image: image('training'),
    ...{ plan, store, control, policy },
    database: own.database('training'),
    sessions: own.database('sessions'),
    identity: keycloak,
    kafka: kafka.user('training'),
  });
  bootstrapOf(region);
  return region;
}

test('the service owns its database, reads the sessions as a reader and writes models', () => {
  const server = trainingOf().find('Deployment', 'training');
  const mounts = mountsOf(server);
  assert.equal(mounts['/secrets/postgres'], 'records-role-training');
  assert.equal(mounts['/secrets/sessions'], 'records-role-sessions-training');
  assert.equal(mounts['/secrets/object-store'], 'models-store-user-training');
  assert.equal(mounts['/secrets/lineage-key'], 'training-lineage');
  const env = environmentOf(server);
  assert.equal(env.PGDATABASE, 'training');
  assert.equal(env.SESSIONS_DATABASE, 'sessions');
  assert.equal(env.OBJECT_STORE_URL, 'https://models-store.north-data.svc:7070/models');
});

test('one pod at a time, without rights on the cluster; nobody but its declared peers gets in', () => {
  const region = trainingOf();
  const { spec } = region.find('Deployment', 'training');
  assert.deepEqual([spec.replicas, spec.strategy], [1, { type: 'Recreate' }]);
  assert.equal(spec.template.spec.automountServiceAccountToken, false);
  assert.deepEqual(spec.template.spec.containers[0].resources.limits.memory, '2Gi');
  assert.deepEqual(region.find('NetworkPolicy', 'training').spec.ingress ?? [], []);
});

test('the migrations come first, as the owner', () => {
  const region = trainingOf();
  const order = region.manifests().map(({ metadata, kind }: Manifest) => `${kind} ${metadata.name}`);
  const job = region.find('Job', 'training-migrate');
  assert.equal(mountsOf(job)['/secrets/postgres'], 'records-role-training');
  assert.ok(order.indexOf(`Job ${job.metadata.name}`) < order.indexOf('Deployment training'));
});

test('a store without the bucket is refused', () => {
  assert.throws(() => trainingOf([]), /user of bucket models is "training"/);
});
