import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodNetwork } from '../core/pod-network.ts';
import { environmentOf, type Manifest, mountsOf, schemaRegistryOf, TestRegion } from '../testing.ts';

function fixture(id = 'schema-registry') {
  const region = new TestRegion();
  return { region, registry: schemaRegistryOf(region, id) };
}

const network = (region: TestRegion, plane: 'services' | 'runtime') =>
  new PodNetwork(region.chart(plane), 'reader', {
    ...{ name: 'reader', product: 'reader', instance: 'reader', component: 'server' },
  });

test('it answers over HTTPS only, to tokens of the region’s own key', () => {
  const { region, registry } = fixture();
  assert.equal(registry.url, 'https://schema-registry.north-data.svc:8443');
  const env = environmentOf(region.find('StatefulSet', 'schema-registry'));
  assert.equal(env.QUARKUS_HTTP_INSECURE_REQUESTS, 'disabled');
  assert.equal(env.REGISTRY_AUTH_ENABLED, 'true');
  assert.equal(env.REGISTRY_AUTH_RBAC_ENABLED, 'true');
  assert.deepEqual(env.QUARKUS_OIDC_PUBLIC_KEY, {
    secretKeyRef: { name: 'schema-registry-key-public', key: 'public.pem' },
  });
  assert.deepEqual(env.QUARKUS_OIDC_READER_PUBLIC_KEY, {
    secretKeyRef: { name: 'schema-registry-reader-key-public', key: 'public.pem' },
  });
  assert.equal(env.REGISTRY_AUTH_ANONYMOUS_READ_ACCESS_ENABLED, undefined);
  assert.match(String(env.JAVA_OPTS), /-Dquarkus\.oidc\.reader\.token\.required-claims\.role=sr-readonly/);
  assert.deepEqual(env.REGISTRY_DATASOURCE_PASSWORD, {
    secretKeyRef: { name: 'schema-registry-database', key: 'password' },
  });
  assert.match(String(env.JAVA_OPTS), /-Xmx120m .*-Dquarkus\.oidc\.auth-server-url= /);
});

test('one pod has the database; only the Job has the private key', () => {
  const { region } = fixture();
  const server = region.find('StatefulSet', 'schema-registry');
  assert.equal(server.spec.replicas, 1);
  assert.deepEqual(mountsOf(server), {
    '/secrets/tls': 'schema-registry-tls',
    '/tmp': 'scratch',
    '/var/lib/registry': 'claim',
  });
  const [container] = server.spec.template.spec.containers;
  assert.deepEqual(container.resources.requests, { cpu: '30m', memory: '300Mi' });
  const job = region.find('Job', 'schema-registry-schemas');
  const plan = region.find('ConfigMap', 'schema-registry-schemas');
  assert.deepEqual(mountsOf(job), {
    '/secrets/ca': 'region-ca-cert',
    '/secrets/registry-key': 'schema-registry-key',
    '/etc/soma': plan.metadata.name,
    '/tmp': 'scratch',
  });
  assert.deepEqual(JSON.parse(plan.data['plan.json']).schemas[0].subject, 'audit.session-session.opened');
  const key = region.plan.close().secrets.find(({ name }) => name === 'schema-registry-key');
  assert.deepEqual(key, {
    ...{ kind: 'signing-key', algorithm: 'RS256' },
    ...{ name: 'schema-registry-key', namespaces: ['north-data'] },
  });
});

test('nobody but the Job is admitted', () => {
  const { ingress } = fixture().region.find('NetworkPolicy', 'schema-registry').spec;
  assert.deepEqual(
    ingress.map(({ from }: Manifest) => from[0].podSelector.matchLabels['somagent.dev/network']),
    ['schema-registry-schemas'],
  );
});

test('readers get a key of their own, in their plane only', () => {
  const { region, registry } = fixture();
  const reader = network(region, 'services');
  const { env, secrets } = registry.reader().connect(reader);
  assert.equal(env.SCHEMA_REGISTRY_KEY_FILE, '/secrets/schema-reader-key/private.pem');
  assert.deepEqual(
    secrets?.map(({ secret }) => secret.name),
    ['region-ca-cert', 'schema-registry-reader-key'],
  );
  const stranger = network(region, 'runtime');
  assert.throws(() => registry.reader().connect(stranger), /lies in north-services and was asked for in north-runtime/);
  const { secrets: planned } = region.plan.close();
  const own = (name: string) => planned.find((each) => each.name === name)?.namespaces;
  assert.deepEqual(own('schema-registry-reader-key'), ['north-services']);
  assert.deepEqual(own('schema-registry-reader-key-public'), ['north-data']);
});

test('a subject that stands twice is refused', () => {
  const region = new TestRegion();
  const twice = ['a', 'a'].map((subject) => ({ subject, compatibility: 'BACKWARD' as const, versions: [{}] }));
  assert.throws(() => schemaRegistryOf(region, 'schema-registry', { schemas: twice }), {
    message: 'schemas is ["a","a"]; allowed: each value once. Remove the second "a".',
  });
});
