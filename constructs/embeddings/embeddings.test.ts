import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { environmentOf, image, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import { Embeddings, type EmbeddingsProps } from './embeddings.ts';

function fixture(props: Partial<EmbeddingsProps> = {}) {
  const region = new TestRegion();
  const chart = region.chart('runtime');
  const embeddings = new Embeddings(chart, 'embeddings', { image: image('embeddings'), plan: region.plan, ...props });
  new DeploymentWorkload(region.chart('services'), 'client', {
    ...{ product: 'client', instance: 'client', component: 'server', name: 'client', image: image('client') },
    resources: { cpu: '50m', memory: '64Mi' },
    connections: [embeddings],
    probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
  });
  return { region, embeddings };
}

test('a client gets the address, the model and a token of its own; no key exists', () => {
  const { region } = fixture();
  const client = environmentOf(region.find('Deployment', 'client'));
  assert.equal(client.EMBEDDINGS_URL, 'https://embeddings.north-runtime.svc:8443/v1');
  assert.equal(client.EMBEDDINGS_MODEL, 'all-minilm-l6-v2');
  assert.equal(client.EMBEDDINGS_TOKEN_FILE, '/var/run/secrets/somagent/embeddings/token');
  assert.equal(client.EMBEDDINGS_CA_FILE, '/secrets/ca/ca.crt');
  const server = environmentOf(region.find('Deployment', 'embeddings'));
  assert.equal(server.EMBEDDINGS_WORKLOAD_AUDIENCE, 'somagent-embeddings');
  assert.equal(server.EMBEDDINGS_WORKLOAD_CALLERS, 'system:serviceaccount:north-services:client');
  assert.equal(server.EMBEDDINGS_API_KEY_FILE, undefined);
});

test('the pod may fetch the keys of the cluster and nothing else, and only the client is admitted', () => {
  const { region } = fixture();
  const deployment = region.find('Deployment', 'embeddings');
  const pod = deployment.spec.template.spec;
  assert.equal(pod.serviceAccountName, 'embeddings');
  assert.ok(pod.volumes.some(({ name }: Manifest) => name === 'token-kubernetes'));
  assert.equal(mountsOf(deployment)['/secrets/embeddings-tls'], 'embeddings-tls');
  assert.equal(pod.containers[0].securityContext.readOnlyRootFilesystem, true);
  const policy = region.find('NetworkPolicy', 'embeddings').spec;
  assert.deepEqual(
    policy.ingress.map(({ from }: Manifest) => from[0].podSelector.matchLabels['somagent.dev/network']),
    ['client'],
  );
  assert.equal(policy.egress.filter(({ to }: Manifest) => to[0].ipBlock).length, 1);
});

test('health is a real embedding', () => {
  const { region } = fixture();
  const [container] = region.find('Deployment', 'embeddings').spec.template.spec.containers;
  for (const probe of ['readinessProbe', 'livenessProbe', 'startupProbe']) {
    assert.deepEqual(container[probe].httpGet, { scheme: 'HTTPS', port: 8443, path: '/healthz' }, probe);
  }
});

test('a wrong number of threads says what to do', () => {
  assert.throws(() => fixture({ threads: 0 }), {
    message: 'threads is 0; allowed: a whole number from 1 to 64. Use for instance 1.',
  });
});
