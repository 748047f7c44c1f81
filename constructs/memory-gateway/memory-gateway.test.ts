import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import {
  environmentOf,
  image,
  keycloakOf,
  type Manifest,
  mountsOf,
  postgresOf,
  slmOf,
  TestRegion,
} from '../testing.ts';
import { MemoryGateway, type MemoryGatewayProps } from './memory-gateway.ts';

const server = (env: Record<string, string>) => ({ connect: () => ({ env, secrets: [] }) });

function memoryGateway(props: Partial<MemoryGatewayProps> = {}) {
  const region = new TestRegion();
  const postgres = postgresOf(region);
  const object = new MemoryGateway(region.chart('services'), 'memory-gateway', {
    image: image('memory-gateway'),
    plan: region.plan,
    database: postgres.database('sessions'),
    vectors: server({ QDRANT_URL: 'https://qdrant:6333' }),
    embeddings: server({ EMBEDDINGS_URL: 'https://embeddings:8443/v1' }),
    slm: slmOf(region),
    identity: keycloakOf(region, postgres),
    control: server({ IDENTITY_URL: 'https://identity:8443' }),
    policy: server({ POLICY_URL: 'https://store/policy' }),
    relations: server({ OPENFGA_URL: 'https://openfga:8443' }),
    kafka: server({ KAFKA_BROKERS: 'kafka:9093' }),
    ...props,
  });
  return { region, object };
}

function clientOf(region: TestRegion, object: MemoryGateway, name: string): DeploymentWorkload {
  return new DeploymentWorkload(region.chart('services'), name, {
    ...{ product: name, instance: name, component: 'server', name, image: image(name) },
    resources: { cpu: '50m', memory: '64Mi' },
    connections: [object],
    probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
  });
}

test('who is wired to it is admitted, has a token of its own and is on the list of callers; nobody else is', () => {
  const { region, object } = memoryGateway();
  clientOf(region, object, 'orchestrator');
  const env = environmentOf(region.find('Deployment', 'memory-gateway'));
  assert.equal(env.WORKLOAD_CALLERS, 'system:serviceaccount:north-services:orchestrator');
  assert.equal(env.WORKLOAD_AUDIENCE, 'somagent-memory-gateway');
  const client = region.find('Deployment', 'orchestrator');
  assert.equal(environmentOf(client).MEMORY_URL, 'https://memory-gateway.north-services.svc:8443');
  assert.equal(environmentOf(client).MEMORY_TOKEN_FILE, '/var/run/secrets/somagent/memory-gateway/token');
  const admitted = region
    .find('NetworkPolicy', 'memory-gateway')
    .spec.ingress.flatMap(({ from }: Manifest) => from)
    .map(({ podSelector }: Manifest) => podSelector.matchLabels['somagent.dev/network']);
  assert.deepEqual(admitted, ['orchestrator']);
  assert.equal(environmentOf(memoryGateway().region.find('Deployment', 'memory-gateway')).WORKLOAD_CALLERS, '');
});

test('it serves with a certificate of its own and asks the model as itself', () => {
  const { region } = memoryGateway();
  const object = region.find('Deployment', 'memory-gateway');
  assert.equal(mountsOf(object)['/secrets/memory-gateway-tls'], 'memory-gateway-tls');
  const env = environmentOf(object);
  assert.equal(env.SLM_URL, 'https://slm.north-runtime.svc:8000/v1');
  assert.equal(env.SLM_TOKEN_FILE, '/var/run/secrets/somagent/slm/token');
  assert.equal(env.QDRANT_URL, 'https://qdrant:6333');
  assert.equal(env.DEDICATED_TENANTS, undefined);
});

test('large tenants are named where they have a collection of their own', () => {
  const { region } = memoryGateway({ dedicatedTenants: ['acme', 'globex'] });
  assert.equal(environmentOf(region.find('Deployment', 'memory-gateway')).DEDICATED_TENANTS, 'acme,globex');
});

test('its schema comes first', () => {
  const { region } = memoryGateway();
  const [job] = region
    .manifests()
    .filter(({ kind, metadata }: Manifest) => kind === 'Job' && metadata.name.startsWith('memory-gateway-migrate'));
  assert.deepEqual(job.spec.template.spec.containers[0].command, ['node', '/app/main.js', 'migrate']);
});
