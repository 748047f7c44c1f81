import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { environmentOf, image, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import { ClickHouse, type ClickHouseProps, type ClickHouseRenderer } from './clickhouse.ts';
import type { ClickHouseUser } from './cluster.ts';

function fixture(props: Partial<ClickHouseProps> = {}) {
  const region = new TestRegion();
  const clickhouse = new ClickHouse(region.chart('data'), 'clickhouse', {
    image: image('clickhouse'),
    plan: region.plan,
    ...props,
  });
  return { region, clickhouse };
}

const podOf = (region: TestRegion, name = 'clickhouse') => region.find('StatefulSet', name).spec.template.spec;

for (const renderer of ['embedded', 'server'] as const) {
  test(`as ${renderer}: a client has address, authority, the passwords it was wired to, and the way there`, () => {
    const { region, clickhouse } = fixture({ renderer });
    const client = new DeploymentWorkload(region.chart('services'), 'analytics', {
      ...{ product: 'analytics', instance: 'analytics', component: 'analytics', image: image('analytics') },
      resources: { cpu: '30m', memory: '96Mi' },
      connections: [clickhouse.user('analytics'), clickhouse.user('reader')],
      probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
    });
    const deployment = region.find('Deployment', 'analytics');
    assert.deepEqual(environmentOf(deployment), {
      CLICKHOUSE_URL: 'https://clickhouse.north-data.svc:8443',
      CLICKHOUSE_CA_FILE: '/secrets/ca/ca.crt',
      CLICKHOUSE_CREDENTIALS_DIR: '/secrets/clickhouse-analytics',
      CLICKHOUSE_READER_CREDENTIALS_DIR: '/secrets/clickhouse-reader',
      ...(renderer === 'server' && { CLICKHOUSE_CLUSTER: 'somagent' }),
    });
    assert.deepEqual(mountsOf(deployment), {
      '/secrets/clickhouse-analytics': 'clickhouse-analytics',
      '/secrets/clickhouse-reader': 'clickhouse-reader',
      '/secrets/ca': 'region-ca-cert',
      '/tmp': 'scratch',
    });
    const admitted = region.find('NetworkPolicy', 'clickhouse').spec.ingress;
    const peer = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': client.namespace } } };
    assert.deepEqual(
      admitted.filter(({ from: [only] }: Manifest) => JSON.stringify(only).includes('north-services')),
      [
        {
          from: [{ ...peer, podSelector: { matchLabels: client.network.podLabels } }],
          ports: [{ protocol: 'TCP', port: 8443 }],
        },
      ],
    );
  });

  test(`as ${renderer}: the Service is in front of the servers, and their certificate has its name`, () => {
    const { region } = fixture({ renderer });
    const service = region.find('Service', 'clickhouse').spec;
    assert.deepEqual(service.selector, {
      'app.kubernetes.io/instance': 'clickhouse',
      'app.kubernetes.io/component': 'server',
    });
    assert.deepEqual(
      service.ports.map(({ port }: Manifest) => port),
      [8443],
    );
    const certificate = region.plan.close().secrets.find(({ name }) => name === 'clickhouse-tls');
    assert.ok(certificate?.kind === 'certificate' && certificate.dnsNames.includes('clickhouse.north-data.svc'));
  });

  test(`as ${renderer}: pods are not root, write to their volume only, and keep no password in the environment`, () => {
    const { region } = fixture({ renderer });
    const pod = podOf(region);
    const [container] = pod.containers;
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.equal(container.securityContext.readOnlyRootFilesystem, true);
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal(mountsOf(region.find('StatefulSet', 'clickhouse'))['/var/lib/clickhouse'], 'claim');
    assert.deepEqual(
      container.env.filter(({ valueFrom }: Manifest) => valueFrom?.secretKeyRef !== undefined),
      [],
    );
  });
}

test('embedded: one pod, its engine within the limit of its memory', () => {
  const { region } = fixture();
  const set = region.find('StatefulSet', 'clickhouse');
  assert.equal(set.spec.replicas, 1);
  const { CLICKHOUSE_MAX_MEMORY_MIB: memory, ...others } = environmentOf(set);
  assert.equal(memory, '563');
  assert.deepEqual(others, {
    CLICKHOUSE_DATABASE: 'analytics',
    CLICKHOUSE_TLS_DIR: '/secrets/clickhouse-tls',
    CLICKHOUSE_USERS_DIR: '/secrets/users',
    CLICKHOUSE_DATA_DIR: '/var/lib/clickhouse',
  });
  assert.deepEqual(mountsOf(set), {
    '/secrets/clickhouse-tls': 'clickhouse-tls',
    '/secrets/users/analytics': 'clickhouse-analytics',
    '/secrets/users/reader': 'clickhouse-reader',
    '/var/lib/clickhouse': 'claim',
    '/tmp': 'scratch',
  });
  assert.deepEqual(podOf(region).containers[0].resources.requests, { cpu: '30m', memory: '320Mi' });
});

const configOf = (region: TestRegion, name: string, file: string): string =>
  region.find('ConfigMap', `clickhouse-${name}-config`).data[file];

test('server: replicas and a quorum of keepers that know each other by name, over TLS', () => {
  const { region } = fixture({ renderer: 'server', replicas: 3 });
  assert.equal(region.find('StatefulSet', 'clickhouse').spec.replicas, 3);
  assert.equal(region.find('StatefulSet', 'clickhouse-keeper').spec.replicas, 3);
  const config = configOf(region, 'server', 'config.xml');
  for (const id of [0, 1, 2]) {
    const server = `<host>clickhouse-${id}.clickhouse-pods.north-data.svc</host><port>9440</port><secure>1</secure>`;
    const keeper = `<host>clickhouse-keeper-${id}.clickhouse-keeper-pods.north-data.svc</host><port>9281</port><secure>1</secure>`;
    assert.ok(config.includes(server), server);
    assert.ok(config.includes(keeper), keeper);
  }
  assert.doesNotMatch(config, /<http_port>|<tcp_port>|<interserver_http_port>/);
  const raft = configOf(region, 'keeper', 'config.xml');
  assert.match(raft, /<raft_configuration><secure>true<\/secure><server><id>1<\/id><hostname>clickhouse-keeper-0\./);
  assert.match(raft, /<verificationMode>strict<\/verificationMode>/);
});

test('server: two users by the hash of their passwords, none called default', () => {
  const { region } = fixture({ renderer: 'server' });
  const users = configOf(region, 'server', 'users.xml');
  const names = [...users.matchAll(/<password_sha256_hex from_env="(\w+)"\/>/g)].map(([, name]) => name);
  assert.deepEqual(names, ['ANALYTICS_SHA256', 'READER_SHA256']);
  const [, list = ''] = users.split('<users>');
  assert.doesNotMatch(list, /<default>|no_password|<password>|access_management/);
  const reader = /<reader>\s+<password[\s\S]*?<\/reader>/.exec(list)?.[0] ?? '';
  assert.match(reader, /GRANT SHOW, SELECT ON analytics\.\*/);
  assert.doesNotMatch(reader, /INSERT|ALTER|CREATE|DROP|CLUSTER|processes|query_log|users/);
  assert.match(users, /<readonly>1<\/readonly>/);
});

test('the keepers admit servers and keepers only', () => {
  const { region } = fixture({ renderer: 'server' });
  const { ingress } = region.find('NetworkPolicy', 'clickhouse-keeper').spec;
  const groups = ingress.flatMap(({ from }: Manifest) => from.map((peer: Manifest) => peer.podSelector.matchLabels));
  assert.deepEqual(groups.map((labels: Manifest) => labels['somagent.dev/network']).sort(), [
    'clickhouse',
    'clickhouse-keeper',
  ]);
});

test('wrong props say what to do', () => {
  assert.throws(() => fixture({ replicas: 2 }), {
    message: 'replicas is 2; allowed: a whole number from 1 to 1. Use for instance 1.',
  });
  assert.throws(() => fixture({ renderer: 'server', keepers: 2 }), {
    message: /^keepers is 2; allowed: an odd number/,
  });
  assert.throws(() => fixture({ renderer: 'helm' as ClickHouseRenderer }), {
    message: 'renderer is "helm"; allowed: "embedded", "server". Use "embedded".',
  });
  assert.throws(() => fixture().clickhouse.user('default' as ClickHouseUser), {
    message: 'user is "default"; allowed: "analytics", "reader". Use "analytics".',
  });
});
