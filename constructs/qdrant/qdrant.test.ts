import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { environmentOf, image, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import { Qdrant, type QdrantProps } from './qdrant.ts';

function fixture(props: Partial<QdrantProps> = {}) {
  const region = new TestRegion();
  const qdrant = new Qdrant(region.chart('data'), 'qdrant', { image: image('qdrant'), plan: region.plan, ...props });
  new DeploymentWorkload(region.chart('services'), 'client', {
    ...{ product: 'client', instance: 'client', component: 'server', name: 'client', image: image('client') },
    resources: { cpu: '50m', memory: '64Mi' },
    connections: [qdrant],
    probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
  });
  return { region, qdrant };
}

test('clients can not tell which renderer made it', () => {
  const [server, edge] = (['server', 'edge'] as const).map((renderer) => fixture({ renderer }));
  for (const kind of ['Service'] as const) {
    assert.deepEqual(server?.region.find(kind, 'qdrant'), edge?.region.find(kind, 'qdrant'));
  }
  assert.deepEqual(server?.region.find('Deployment', 'client'), edge?.region.find('Deployment', 'client'));
  const client = edge?.region.find('Deployment', 'client');
  const env = environmentOf(client);
  assert.equal(env.QDRANT_URL, 'https://qdrant.north-data.svc:6333');
  assert.equal(env.QDRANT_API_KEY_FILE, '/secrets/qdrant-api-key/token');
  assert.equal(env.QDRANT_CA_FILE, '/secrets/ca/ca.crt');
  assert.equal(mountsOf(client)['/secrets/qdrant-api-key'], 'qdrant-api-key');
});

test('the server is distributed, all of it over TLS, and its key is no plain text', () => {
  const { region } = fixture({ renderer: 'server' });
  const server = region.find('StatefulSet', 'qdrant');
  assert.equal(server.spec.replicas, 3);
  const env = environmentOf(server);
  assert.deepEqual(env.QDRANT__SERVICE__API_KEY, { secretKeyRef: { name: 'qdrant-api-key', key: 'token' } });
  assert.equal(env.QDRANT__SERVICE__ENABLE_TLS, 'true');
  assert.equal(env.QDRANT__CLUSTER__P2P__ENABLE_TLS, 'true');
  assert.equal(env.QDRANT__CLUSTER__ENABLED, 'true');
  assert.equal(env.PEERS_HOST, 'qdrant-peers.north-data.svc');
  assert.equal(region.find('Service', 'qdrant-peers').spec.clusterIP, 'None');
  const certificate = region.plan.close().secrets.find(({ name }) => name === 'qdrant-tls') as Manifest;
  assert.deepEqual(certificate.usages, ['server', 'client']);
  assert.ok(certificate.dnsNames.includes('*.qdrant-peers.north-data.svc'));
  assert.equal(region.find('PodDisruptionBudget', 'qdrant').spec.maxUnavailable, 1);
});

test('edge is one pod with a volume, without rights, and gets its key as a file', () => {
  const { region } = fixture({ renderer: 'edge' });
  const server = region.find('StatefulSet', 'qdrant');
  const pod = server.spec.template.spec;
  assert.equal(server.spec.replicas, 1);
  assert.deepEqual(mountsOf(server), {
    '/secrets/api-key': 'qdrant-api-key',
    '/secrets/ca': 'region-ca-cert',
    '/secrets/tls': 'qdrant-tls',
    '/tmp': 'scratch',
    '/var/lib/vector-store': 'claim',
  });
  assert.equal(pod.automountServiceAccountToken, false);
  assert.equal(pod.containers[0].securityContext.readOnlyRootFilesystem, true);
  assert.equal(pod.securityContext.runAsNonRoot, true);
  assert.deepEqual(pod.containers[0].resources.requests, { cpu: '30m', memory: '128Mi' });
  assert.equal(
    Object.values(environmentOf(server)).some((value) => typeof value !== 'string'),
    false,
  );
});

test('only declared clients are admitted, and with the server its own nodes', () => {
  const admitted = (renderer: 'server' | 'edge') =>
    fixture({ renderer })
      .region.find('NetworkPolicy', 'qdrant')
      .spec.ingress.flatMap(({ from }: Manifest) => from)
      .map(({ podSelector }: Manifest) => podSelector.matchLabels['somagent.dev/network'])
      .sort();
  assert.deepEqual(admitted('edge'), ['client']);
  assert.deepEqual(admitted('server'), ['client', 'qdrant']);
});

test('what a renderer can not do is said before anything is made', () => {
  assert.throws(() => fixture({ renderer: 'edge', replicas: 2 }), {
    message: 'replicas is 2; allowed: 1 with the renderer edge. Use the renderer server for more.',
  });
  assert.throws(() => fixture({ renderer: 'cloud' as 'edge' }), { message: /renderer is "?cloud"?/ });
});
