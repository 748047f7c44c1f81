import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parse } from 'yaml';
import { environmentOf, image, type Manifest, mountsOf, postgresOf, TestRegion } from '../testing.ts';
import { patroniConfig } from './patroni-config.ts';
import { Postgres, type PostgresProps } from './postgres.ts';

function config(members = 3) {
  return parse(patroniConfig({ scope: 'postgres', members, maxConnections: 200, memory: '256Mi' }));
}

test('an acknowledged commit is on two members, and a crashed primary is replaced at once', () => {
  const { dcs } = config().bootstrap;
  assert.equal(dcs.synchronous_mode, 'quorum');
  assert.equal(dcs.synchronous_mode_strict, true);
  assert.equal(dcs.synchronous_node_count, 1);
  assert.equal(dcs.primary_start_timeout, 0);
  assert.equal(dcs.failsafe_mode, true);
  assert.equal(config(1).bootstrap.dcs.synchronous_mode, false);
});

test("Patroni's own rules hold: ttl ≥ 20, loop_wait ≥ 1, loop_wait + 2·retry_timeout ≤ ttl", () => {
  const { ttl, loop_wait, retry_timeout } = config().bootstrap.dcs;
  assert.ok(ttl >= 20 && loop_wait >= 1 && retry_timeout >= 3);
  assert.ok(loop_wait + 2 * retry_timeout <= ttl);
});

test('over the network there is only TLS with scram', () => {
  const { pg_hba, parameters } = config().postgresql;
  const network = pg_hba.filter((line: string) => !line.startsWith('local '));
  assert.deepEqual(network, ['hostssl all all all scram-sha-256', 'hostssl replication replicator all scram-sha-256']);
  assert.equal(parameters.ssl, 'on');
  assert.equal(parameters.password_encryption, 'scram-sha-256');
});

test('shared buffers are a quarter of the memory', () => {
  fc.assert(
    fc.property(fc.integer({ min: 128, max: 65_536 }), (mebibytes) => {
      const text = patroniConfig({ scope: 'p', members: 3, maxConnections: 10, memory: `${mebibytes}Mi` });
      assert.equal(parse(text).postgresql.parameters.shared_buffers, `${Math.floor(mebibytes / 4)}MB`);
    }),
  );
});

test('three members start together, each with a volume and a name that its certificate carries', () => {
  const region = new TestRegion();
  postgresOf(region);
  const set = region.find('StatefulSet', 'postgres');
  assert.equal(set.spec.replicas, 3);
  assert.equal(set.spec.podManagementPolicy, 'Parallel');
  assert.equal(set.spec.serviceName, 'postgres-pods');
  assert.deepEqual(set.spec.volumeClaimTemplates[0].spec.resources, { requests: { storage: '2Gi' } });
  assert.equal(set.spec.template.metadata.labels['cluster-name'], 'postgres');
  assert.equal(
    environmentOf(set).PATRONI_POSTGRESQL_CONNECT_ADDRESS,
    '$(PATRONI_NAME).postgres-pods.north-data.svc:5432',
  );
  const certificate = region.plan.close().secrets.find(({ name }) => name === 'postgres-tls');
  assert.deepEqual(certificate, {
    kind: 'certificate',
    commonName: 'postgres',
    dnsNames: [
      'postgres',
      'postgres.north-data.svc',
      'postgres-replicas.north-data.svc',
      '*.postgres-pods.north-data.svc',
    ],
    ipAddresses: [],
    usages: ['server', 'client'],
    name: 'postgres-tls',
    namespaces: ['north-data'],
  });
});

test('Patroni writes the Endpoints of the primary; the replicas are found by their role', () => {
  const region = new TestRegion();
  const postgres = postgresOf(region);
  assert.equal(postgres.host, 'postgres.north-data.svc');
  const primary = region.find('Service', 'postgres');
  assert.equal(primary.spec.selector, undefined);
  assert.equal(primary.metadata.annotations['pulumi.com/skipAwait'], 'true');
  assert.deepEqual(primary.spec.ports, [{ name: 'postgresql', port: 5432, targetPort: 5432 }]);
  assert.deepEqual(region.find('Service', 'postgres-replicas').spec.selector, {
    'cluster-name': 'postgres',
    role: 'replica',
  });
  const pods = region.find('Service', 'postgres-pods').spec;
  assert.equal(pods.clusterIP, 'None');
  assert.equal(pods.publishNotReadyAddresses, true);
});

test('its rights on the Kubernetes API are those of the consensus store', () => {
  const region = new TestRegion();
  postgresOf(region);
  assert.deepEqual(region.find('Role', 'postgres').rules, [
    {
      apiGroups: [''],
      resources: ['endpoints'],
      verbs: ['create', 'get', 'list', 'patch', 'update', 'watch', 'delete'],
    },
    { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'patch', 'update', 'watch'] },
    { apiGroups: [''], resources: ['services'], verbs: ['create'] },
  ]);
});

test('the databases Job has the plan and the password of each owner and reader once', () => {
  const region = new TestRegion();
  postgresOf(region);
  const job = region.find('Job', 'postgres-databases');
  assert.deepEqual(mountsOf(job), {
    '/secrets/ca': 'region-ca-cert',
    '/secrets/superuser': 'postgres-superuser',
    '/secrets/roles/temporal': 'postgres-role-temporal',
    '/secrets/roles/keycloak': 'postgres-role-keycloak',
    '/secrets/roles/sessions': 'postgres-role-sessions',
    '/secrets/roles/sessions_gateway': 'postgres-role-sessions-gateway',
    '/secrets/roles/sessions_relations': 'postgres-role-sessions-relations',
    '/secrets/roles/identity': 'postgres-role-identity',
    '/secrets/roles/openfga': 'postgres-role-openfga',
    '/etc/soma': region.find('ConfigMap', 'postgres-databases').metadata.name,
    '/tmp': 'scratch',
  });
  assert.equal(environmentOf(job).PGHOST, 'postgres.north-data.svc');
});

test('only members, the databases Job and wired clients reach it', () => {
  const region = new TestRegion();
  postgresOf(region);
  const { ingress, egress } = region.find('NetworkPolicy', 'postgres').spec;
  const sources = ingress.map((rule: Manifest) => [
    rule.from[0].podSelector.matchLabels['somagent.dev/network'],
    rule.ports.map(({ port }: Manifest) => port),
  ]);
  assert.deepEqual(sources, [
    ['postgres', [5432, 8008]],
    ['postgres-databases', [5432]],
  ]);
  assert.deepEqual(egress[1], {
    to: [{ ipBlock: { cidr: '0.0.0.0/0' } }],
    ports: [
      { protocol: 'TCP', port: 443 },
      { protocol: 'TCP', port: 6443 },
    ],
  });
});

test('wrong props say what to do', () => {
  const make = (props: Partial<PostgresProps>) => () => {
    const region = new TestRegion();
    return new Postgres(region.chart('data'), 'postgres', {
      image: image('postgres'),
      bootstrapImage: image('bootstrap'),
      plan: region.plan,
      databases: [{ name: 'sessions', owner: 'sessions' }],
      ...props,
    });
  };
  assert.throws(make({ members: 2 }), /^InvalidPropError: members is 2; allowed: an odd number from 1 to 9\. Use 3/);
  assert.throws(make({ storage: '2G' }), /^InvalidPropError: storage is "2G"; allowed: a whole number followed by Ki/);
  assert.throws(make({ databases: [{ name: 'a-b', owner: 'a' }] }), {
    message: 'database name is "a-b"; allowed: a plain SQL identifier: a–z, 0–9 and "_". Use for instance "sessions".',
  });
  assert.throws(() => make({})().database('billing'), {
    message: 'database is "billing"; allowed: sessions. Add it to the databases of "postgres".',
  });
});
