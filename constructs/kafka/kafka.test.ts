import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { environmentOf, image, kafkaOf, type Manifest, mountsOf, TestRegion } from '../testing.ts';
import type { KafkaProps } from './kafka.ts';

function fixture(props: Partial<KafkaProps> = {}) {
  const region = new TestRegion();
  return { region, kafka: kafkaOf(region, 'kafka', props) };
}

const settingsOf = (region: TestRegion): Record<string, string> =>
  Object.fromEntries(
    region
      .find('ConfigMap', 'kafka-config')
      .data['server.properties'].trim()
      .split('\n')
      .map((line: string) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );

test('three brokers, each controller too, by names that their certificate has', () => {
  const { region } = fixture();
  const set = region.find('StatefulSet', 'kafka');
  assert.equal(set.spec.replicas, 3);
  assert.equal(set.spec.podManagementPolicy, 'Parallel');
  const settings = settingsOf(region);
  assert.equal(settings['process.roles'], 'broker,controller');
  const hosts = [0, 1, 2].map((id) => `kafka-${id}.kafka-pods.north-data.svc`);
  assert.equal(settings['controller.quorum.voters'], hosts.map((host, id) => `${id}@${host}:9090`).join(','));
  assert.equal(
    settings['advertised.listeners'],
    'CLIENTS://kafka-@NODE_ID@.kafka-pods.north-data.svc:9093,BROKERS://kafka-@NODE_ID@.kafka-pods.north-data.svc:9091',
  );
  const certificate = region.plan.close().secrets.find(({ name }) => name === 'kafka-tls');
  assert.deepEqual(certificate, {
    kind: 'certificate',
    name: 'kafka-tls',
    namespaces: ['north-data'],
    commonName: 'kafka-broker',
    dnsNames: ['kafka', 'kafka.north-data.svc', ...hosts],
    ipAddresses: [],
    usages: ['server', 'client'],
  });
});

test('clients sign in over TLS, brokers show certificates, who has no rule is denied', () => {
  const settings = settingsOf(fixture().region);
  assert.equal(settings['listener.security.protocol.map'], 'CLIENTS:SASL_SSL,BROKERS:SSL,CONTROLLERS:SSL');
  assert.equal(settings['sasl.enabled.mechanisms'], 'SCRAM-SHA-512');
  assert.equal(settings['ssl.client.auth'], 'required');
  assert.equal(settings['allow.everyone.if.no.acl.found'], 'false');
  assert.equal(settings['super.users'], 'User:CN=kafka-broker;User:kafka-admin');
  assert.equal(settings['authorizer.class.name'], 'org.apache.kafka.metadata.authorizer.StandardAuthorizer');
});

test('copies and acknowledgements follow the number of brokers', () => {
  const replication = (brokers: number) => {
    const settings = settingsOf(fixture({ brokers, declared: { topics: [], users: [], acls: [] } }).region);
    return [settings['default.replication.factor'], settings['min.insync.replicas']];
  };
  assert.deepEqual([1, 3, 5].map(replication), [
    ['1', '1'],
    ['3', '2'],
    ['5', '3'],
  ]);
});

test('a broker knows its number, its cluster and its heap; no secret is a variable', () => {
  const { region } = fixture();
  const set = region.find('StatefulSet', 'kafka');
  const { CLUSTER_ID, JAVA_OPTS, NODE_ID, ...others } = environmentOf(set);
  assert.match(String(CLUSTER_ID), /^[\w-]{22}$/);
  assert.match(String(JAVA_OPTS), /-XX:\+UseSerialGC -XX:TieredStopAtLevel=1 -Xms96m -Xmx192m/);
  assert.deepEqual(NODE_ID, { fieldRef: { fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']" } });
  assert.deepEqual(others, { ADMIN_DIR: '/secrets/admin', HEALTH_PORT: '8081' });
  assert.deepEqual(mountsOf(set), {
    '/secrets/tls': 'kafka-tls',
    '/secrets/admin': 'kafka-admin',
    '/etc/kafka': region.find('ConfigMap', 'kafka-config').metadata.name,
    '/tmp': 'scratch',
    '/var/lib/kafka': 'claim',
  });
  const [broker] = set.spec.template.spec.containers;
  assert.deepEqual(broker.resources.requests, { cpu: '50m', memory: '320Mi' });
  assert.equal(broker.readinessProbe.httpGet.path, '/readyz');
  assert.deepEqual(region.find('PodDisruptionBudget', 'kafka').spec.maxUnavailable, 1);
});

test('the Job gets exactly what was declared and the password of every user', () => {
  const { region } = fixture();
  const job = region.find('Job', 'kafka-topics');
  assert.deepEqual(job.spec.template.spec.containers[0].command, ['node', '/app/main.js', 'kafka']);
  const plan = region.find('ConfigMap', 'kafka-topics');
  assert.deepEqual(JSON.parse(plan.data['plan.json']), declared);
  assert.deepEqual(mountsOf(job), {
    '/secrets/ca': 'region-ca-cert',
    '/secrets/admin': 'kafka-admin',
    '/secrets/users/audit': 'kafka-user-audit',
    '/etc/soma': plan.metadata.name,
    '/tmp': 'scratch',
  });
  const again = region.find('CronJob', 'kafka-drift');
  assert.equal(again.spec.schedule, '23 * * * *');
});

const declared = {
  topics: [{ name: 'audit.session', partitions: 3, replicas: 3, config: { 'retention.ms': '2592000000' } }],
  users: [{ name: 'audit' }],
  acls: [{ user: 'audit', resource: { type: 'topic', name: 'audit.session' }, operations: ['read'] }],
};

for (const renderer of ['pods', 'strimzi'] as const) {
  test(`as ${renderer}: a user's service gets address, password, authority and the way there`, () => {
    const { region, kafka } = fixture({ renderer });
    const client = new DeploymentWorkload(region.chart('services'), 'audit', {
      ...{ product: 'audit', instance: 'audit', component: 'audit', image: image('audit') },
      resources: { cpu: '50m', memory: '96Mi' },
      connections: [kafka.user('audit')],
      probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
    });
    const deployment = region.find('Deployment', 'audit');
    assert.deepEqual(environmentOf(deployment), {
      KAFKA_BROKERS: 'kafka.north-data.svc:9093',
      KAFKA_CREDENTIALS_DIR: '/secrets/kafka',
      KAFKA_CA_FILE: '/secrets/ca/ca.crt',
    });
    assert.deepEqual(mountsOf(deployment), {
      '/secrets/kafka': 'kafka-user-audit',
      '/secrets/ca': 'region-ca-cert',
      '/tmp': 'scratch',
    });
    const admitted = region.find('NetworkPolicy', 'kafka').spec.ingress;
    const peer = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': client.namespace } } };
    assert.deepEqual(
      admitted.filter(({ from: [only] }: Manifest) => JSON.stringify(only).includes('north-services')),
      [
        {
          from: [{ ...peer, podSelector: { matchLabels: client.network.podLabels } }],
          ports: [{ protocol: 'TCP', port: 9093 }],
        },
      ],
    );
  });
}

test('the ports of the brokers are open to brokers only', () => {
  const admitted = fixture().region.find('NetworkPolicy', 'kafka').spec.ingress;
  const toBrokers = admitted.filter(({ ports }: Manifest) => ports.some(({ port }: Manifest) => port === 9091));
  assert.deepEqual(
    toBrokers.map(({ from }: Manifest) => from[0].podSelector.matchLabels),
    [{ 'somagent.dev/network': 'kafka' }],
  );
});

test('for the operator: the same cluster, topics and users as resources, and no pod of ours', () => {
  const { region } = fixture({ renderer: 'strimzi' });
  assert.deepEqual(
    region
      .manifests()
      .map(({ kind }) => kind)
      .toSorted(),
    ['Kafka', 'KafkaNodePool', 'KafkaTopic', 'KafkaUser', 'NetworkPolicy', 'Service'],
  );
  const { spec } = region.find('Kafka', 'kafka');
  const [listener] = spec.kafka.listeners;
  assert.deepEqual([listener.port, listener.tls, listener.authentication.type], [9093, true, 'scram-sha-512']);
  assert.equal(listener.configuration.brokerCertChainAndKey.secretName, 'kafka-tls');
  assert.equal(spec.kafka.config['min.insync.replicas'], 2);
  assert.equal(spec.kafka.config['auto.create.topics.enable'], false);
  assert.equal(region.find('KafkaNodePool', 'kafka-broker').spec.replicas, 3);
  assert.deepEqual(region.find('KafkaTopic', 'kafka.audit.session').spec, {
    topicName: 'audit.session',
    partitions: 3,
    replicas: 3,
    config: { 'retention.ms': '2592000000' },
  });
  assert.deepEqual(region.find('KafkaUser', 'audit').spec, {
    authentication: {
      type: 'scram-sha-512',
      password: { valueFrom: { secretKeyRef: { name: 'kafka-user-audit', key: 'password' } } },
    },
    authorization: {
      type: 'simple',
      acls: [
        {
          type: 'allow',
          host: '*',
          resource: { type: 'topic', name: 'audit.session', patternType: 'literal' },
          operations: ['Read'],
        },
      ],
    },
  });
});

test('both renderers have the same address, in front of the pods that each of them makes', () => {
  const pods = fixture();
  const operator = fixture({ renderer: 'strimzi' });
  assert.equal(operator.kafka.bootstrapServers, pods.kafka.bootstrapServers);
  assert.deepEqual(operator.region.find('Service', 'kafka').spec.selector, {
    'strimzi.io/cluster': 'kafka',
    'strimzi.io/broker-role': 'true',
  });
  const hosts = operator.region.plan.close().secrets.find(({ name }) => name === 'kafka-tls');
  assert.ok(
    hosts?.kind === 'certificate' &&
      hosts.dnsNames.includes('kafka-kafka-broker-2.kafka-kafka-brokers.north-data.svc') &&
      hosts.dnsNames.includes('kafka.north-data.svc'),
  );
});

test('wrong props say what to do', () => {
  assert.throws(() => fixture({ brokers: 2 }), { message: /^brokers is 2; allowed: an odd number from 1 to 9/ });
  assert.throws(() => fixture({ brokers: 1 }), {
    message: 'replicas of topic audit.session is 3; allowed: a whole number from 1 to 1. Use for instance 1.',
  });
  assert.throws(() => fixture({ renderer: 'helm' as 'pods' }), {
    message: 'renderer is "helm"; allowed: "pods", "strimzi". Use "pods".',
  });
  assert.throws(() => fixture().kafka.user('stranger'), {
    message: 'user is "stranger"; allowed: audit. Declare it and its grants for "kafka".',
  });
  const stranger = { user: 'stranger', resource: { type: 'group', name: 'x' }, operations: ['read'] } as const;
  assert.throws(() => fixture({ declared: { topics: [], users: [], acls: [stranger] } }), {
    message: 'user of a grant is "stranger"; allowed: . Add it to declared.users.',
  });
});
