import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootstrapOf, image, type Manifest, mountsOf, postgresOf, TestRegion, wholeRegion } from '../testing.ts';
import { Bootstrap } from './bootstrap.ts';

test('the Job gets the closed plan as an immutable file', () => {
  const region = new TestRegion();
  region.plan.token('api-key', 'north-runtime');
  const bootstrap = bootstrapOf(region);
  const config = region.find('ConfigMap', 'bootstrap-plan');
  assert.deepEqual(JSON.parse(config.data['plan.json']), bootstrap.document);
  assert.equal(config.immutable, true);
  const job = region.find('Job', 'bootstrap-secrets');
  assert.equal(job.metadata.name, bootstrap.jobName);
  assert.equal(mountsOf(job)['/etc/soma'], config.metadata.name);
  assert.deepEqual(job.spec.template.spec.containers[0].command, ['node', '/app/main.js', 'secrets']);
});

test('its rights are the secrets of the plan, in their namespaces and nowhere else', () => {
  const region = new TestRegion();
  region.plan.token('api-key', 'north-runtime');
  bootstrapOf(region);
  const roles = region.manifests().filter(({ kind }) => kind === 'Role');
  const rights = (name: string) => [
    { apiGroups: [''], resources: ['secrets'], verbs: ['create'] },
    { apiGroups: [''], resources: ['secrets'], verbs: ['get', 'update'], resourceNames: [name] },
  ];
  assert.deepEqual(
    roles.map((role: Manifest) => [role.metadata.namespace, role.rules]),
    [
      ['north-runtime', rights('api-key')],
      ['north-system', rights('region-ca')],
    ],
  );
  const binding = region.manifests().find(({ kind }) => kind === 'RoleBinding');
  assert.deepEqual(binding.subjects, [
    { kind: 'ServiceAccount', name: 'bootstrap-secrets', namespace: 'north-system' },
  ]);
  const pod = region.find('Job', 'bootstrap-secrets').spec.template.spec;
  assert.equal(pod.automountServiceAccountToken, true);
  assert.equal(pod.serviceAccountName, 'bootstrap-secrets');
});

test('a product that comes after it is told so', () => {
  const region = new TestRegion();
  bootstrapOf(region);
  assert.throws(() => postgresOf(region), /was asked for after the plan of region north was closed/);
});

test('every secret that a pod of the region mounts or reads is in the plan for its namespace', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const { secrets } = bootstrapOf(region).document;
  const planned = new Set(secrets.flatMap(({ name, namespaces }) => namespaces.map((space) => `${space}/${name}`)));
  const used = region.manifests().flatMap((object: Manifest) => {
    const pod = object.spec?.template?.spec;
    if (pod === undefined) return [];
    const names = [
      ...pod.volumes.flatMap((volume: Manifest) => volume.secret?.secretName ?? []),
      ...pod.containers[0].env.flatMap((item: Manifest) => item.valueFrom?.secretKeyRef?.name ?? []),
    ];
    return names.map((name) => `${object.metadata.namespace}/${name}`);
  });
  assert.ok(used.length > 40);
  assert.deepEqual(
    used.filter((secret) => !planned.has(secret)),
    [],
  );
});

test('the same task runs every night, never twice at once, and renews certificates', () => {
  const region = new TestRegion();
  region.plan.token('api-key', 'north-runtime');
  bootstrapOf(region);
  const { spec } = region.find('CronJob', 'bootstrap-renewal');
  assert.equal(spec.schedule, '17 3 * * *');
  assert.equal(spec.concurrencyPolicy, 'Forbid');
  const { containers, serviceAccountName } = spec.jobTemplate.spec.template.spec;
  assert.deepEqual(containers[0].command, ['node', '/app/main.js', 'secrets']);
  assert.equal(serviceAccountName, 'bootstrap-secrets');
});

test('a wrong schedule says what to do', () => {
  const region = new TestRegion();
  const props = { image: image('bootstrap'), plan: region.plan, renewal: 'nightly' };
  assert.throws(() => new Bootstrap(region.chart('system'), 'bootstrap', props), {
    message:
      'schedule of bootstrap-renewal is "nightly"; allowed: the five fields of cron. Use for instance "17 3 * * *".',
  });
});
