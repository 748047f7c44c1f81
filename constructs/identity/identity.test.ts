import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { environmentOf, image, keycloakOf, type Manifest, postgresOf, TestRegion } from '../testing.ts';
import { Identity, type IdentityProps, identityLogoutUrl } from './identity.ts';

const server = (env: Record<string, string>) => ({ connect: () => ({ env, secrets: [] }) });

function identity(props: Partial<IdentityProps> = {}) {
  const region = new TestRegion();
  const postgres = postgresOf(region);
  const object = new Identity(region.chart('services'), 'identity', {
    image: image('identity'),
    plan: region.plan,
    database: postgres.database('sessions'),
    keycloak: keycloakOf(region, postgres),
    kafka: server({ KAFKA_BROKERS: 'kafka:9093' }),
    policy: server({ POLICY_URL: 'https://store/policy' }),
    ...props,
  });
  return { region, object };
}

function clientOf(region: TestRegion, object: Identity, name: string): DeploymentWorkload {
  return new DeploymentWorkload(region.chart('services'), name, {
    ...{ product: name, instance: name, component: 'server', name, image: image(name) },
    resources: { cpu: '50m', memory: '64Mi' },
    connections: [object],
    probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
  });
}

test('who is wired to it is admitted, has a token of its own and is on the list of callers', () => {
  const { region, object } = identity();
  clientOf(region, object, 'gateway');
  clientOf(region, object, 'audit');
  const env = environmentOf(region.find('Deployment', 'identity'));
  assert.equal(
    env.WORKLOAD_CALLERS,
    'system:serviceaccount:north-services:audit,system:serviceaccount:north-services:gateway',
  );
  assert.equal(env.WORKLOAD_AUDIENCE, 'somagent-identity');
  const client = region.find('Deployment', 'gateway');
  assert.equal(environmentOf(client).IDENTITY_URL, 'https://identity.north-services.svc:8443');
  assert.equal(environmentOf(client).IDENTITY_TOKEN_FILE, '/var/run/secrets/somagent/identity/token');
  assert.equal(client.spec.template.spec.serviceAccountName, 'gateway');
  const admitted = region
    .find('NetworkPolicy', 'identity')
    .spec.ingress.flatMap(({ from }: Manifest) => from)
    .map(({ podSelector }: Manifest) => podSelector.matchLabels['somagent.dev/network']);
  assert.deepEqual(admitted, ['keycloak', 'gateway', 'audit']);
});

test('nobody else is on the list', () => {
  assert.equal(environmentOf(identity().region.find('Deployment', 'identity')).WORKLOAD_CALLERS, '');
});

test('it keeps accounts as a client of the realm by the token of its pod, without a secret, and has no right on the Kubernetes API', () => {
  const { region } = identity();
  const object = region.find('Deployment', 'identity');
  const env = environmentOf(object);
  assert.equal(env.KEYCLOAK_URL, 'https://keycloak.north-identity.svc:8443');
  assert.equal(env.OIDC_ISSUER, 'https://login.example.com/realms/somagent');
  assert.equal(env.KEYCLOAK_TOKEN_FILE, '/var/run/secrets/somagent/keycloak/token');
  const own = object.spec.template.spec.volumes.find(({ name }: Manifest) => name === 'token-keycloak');
  assert.equal(own.projected.sources[0].serviceAccountToken.audience, 'https://login.example.com/realms/somagent');
  assert.equal(object.spec.template.spec.serviceAccountName, 'identity');
  const names = region.plan.close().secrets.map(({ name }) => name);
  assert.deepEqual(
    names.filter((name) => name === 'keycloak-client-somagent-identity'),
    [],
  );
  const roles = region.manifests().filter(({ kind }) => kind === 'Role' || kind === 'RoleBinding');
  assert.deepEqual(
    roles.filter(({ metadata }) => metadata.name === 'identity'),
    [],
  );
  const [token] = object.spec.template.spec.volumes.filter(({ name }: Manifest) => name === 'token-kubernetes');
  assert.equal(token.projected.sources.length, 2);
});

test('one pod unless more are asked for; the tables come first', () => {
  const { region } = identity({ replicas: 2 });
  assert.equal(identity().region.find('Deployment', 'identity').spec.replicas, 1);
  assert.equal(region.find('Deployment', 'identity').spec.replicas, 2);
  const order = region.manifests().map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  const job = region.find('Job', 'identity-migrate').metadata.name;
  assert.ok(order.indexOf(`Job ${job}`) < order.indexOf('Deployment identity'));
});

test('the address for logouts is the one that it listens on', () => {
  const { object } = identity();
  assert.equal(identityLogoutUrl('north'), `${object.url}/v1/backchannel-logout`);
});
