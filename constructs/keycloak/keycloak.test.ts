import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodNetwork } from '../core/pod-network.ts';
import { environmentOf, image, keycloakOf, mountsOf, postgresOf, TestRegion } from '../testing.ts';
import { Keycloak } from './keycloak.ts';

function fixture() {
  const region = new TestRegion();
  return { region, keycloak: keycloakOf(region, postgresOf(region)) };
}

test('tokens carry the public name; keys are fetched by the inner one', () => {
  const { region, keycloak } = fixture();
  assert.equal(keycloak.issuer, 'https://login.example.com/realms/somagent');
  assert.equal(
    keycloak.jwksUrl,
    'https://keycloak.north-identity.svc:8443/realms/somagent/protocol/openid-connect/certs',
  );
  const env = environmentOf(region.find('Deployment', 'keycloak'));
  assert.equal(env.KC_HOSTNAME, 'https://login.example.com');
  assert.equal(env.KC_HOSTNAME_BACKCHANNEL_DYNAMIC, 'true');
  assert.equal(env.KC_HTTP_ENABLED, 'false');
});

test('the database is verified and its password is a reference', () => {
  const env = environmentOf(fixture().region.find('Deployment', 'keycloak'));
  assert.equal(
    env.KC_DB_URL,
    'jdbc:postgresql://postgres.north-data.svc:5432/keycloak?sslmode=verify-full&sslrootcert=/secrets/ca/ca.crt&tcpKeepAlive=true&socketTimeout=30',
  );
  assert.deepEqual(env.KC_DB_PASSWORD, { secretKeyRef: { name: 'postgres-role-keycloak', key: 'password' } });
  assert.deepEqual(env.KC_BOOTSTRAP_ADMIN_CLIENT_SECRET, {
    secretKeyRef: { name: 'keycloak-admin', key: 'password' },
  });
});

test('it trusts the authority of the region and waits for a failover of its database', () => {
  const env = environmentOf(fixture().region.find('Deployment', 'keycloak'));
  assert.equal(env.KC_TRUSTSTORE_PATHS, '/secrets/ca/ca.crt');
  assert.equal(env.KC_DB_POOL_ACQUISITION_TIMEOUT, '10s');
  assert.equal(env.KC_DB_CONNECT_TIMEOUT, '3s');
});

test('the realm Job gets the realm, the administrator and the secret of every client', () => {
  const { region } = fixture();
  const job = region.find('Job', 'keycloak-realm');
  const realm = region.find('ConfigMap', 'keycloak-realm');
  assert.deepEqual(JSON.parse(realm.data['plan.json']), {
    name: 'somagent',
    clients: [
      { clientId: 'acme-agent' },
      { clientId: 'globex-agent' },
      { clientId: 'somagent-identity', workload: { plane: 'services', serviceAccount: 'identity' } },
    ],
  });
  assert.deepEqual(mountsOf(job), {
    '/secrets/ca': 'region-ca-cert',
    '/secrets/admin': 'keycloak-admin',
    '/secrets/clients/acme-agent': 'keycloak-client-acme-agent',
    '/secrets/clients/globex-agent': 'keycloak-client-globex-agent',
    '/etc/soma': realm.metadata.name,
    '/tmp': 'scratch',
    '/var/run/secrets/somagent/kubernetes': 'claim',
  });
  const client = region.plan.close().secrets.find(({ name }) => name === 'keycloak-client-acme-agent');
  assert.deepEqual(client?.namespaces, ['north-identity', 'north-services', 'north-system']);
});

test('people get a generated password, and the listener of logouts is named', () => {
  const region = new TestRegion();
  new Keycloak(region.chart('identity'), 'keycloak', {
    image: image('keycloak'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    database: postgresOf(region).database('keycloak'),
    hostname: 'https://login.example.com',
    realm: { name: 'somagent', clients: [], people: [{ username: 'ada' }] },
    logoutUrl: 'https://identity.north-services.svc:8443/v1/backchannel-logout',
  });
  const job = region.find('Job', 'keycloak-realm');
  assert.equal(mountsOf(job)['/secrets/users/ada'], 'keycloak-user-ada');
  assert.equal(environmentOf(job).LOGOUT_URL, 'https://identity.north-services.svc:8443/v1/backchannel-logout');
  const secret = region.plan.close().secrets.find(({ name }) => name === 'keycloak-user-ada');
  assert.deepEqual(secret?.namespaces, ['north-identity', 'north-services', 'north-system']);
});

test('what was changed by hand is repaired each hour, never twice at once', () => {
  const { region } = fixture();
  const { spec } = region.find('CronJob', 'keycloak-realm-repair');
  assert.deepEqual([spec.schedule, spec.concurrencyPolicy, spec.suspend], ['23 * * * *', 'Forbid', undefined]);
  const job = region.find('Job', 'keycloak-realm');
  assert.deepEqual(mountsOf(spec.jobTemplate), mountsOf(job));
  assert.deepEqual(environmentOf(spec.jobTemplate), environmentOf(job));
});

test('signing keys are replaced at once only when somebody asks for it, without the secret of any client', () => {
  const { region } = fixture();
  const { spec } = region.find('CronJob', 'keycloak-signing-keys');
  assert.equal(spec.suspend, true);
  const { containers } = spec.jobTemplate.spec.template.spec;
  assert.deepEqual(containers[0].command, ['node', '/app/main.js', 'realm-keys']);
  assert.equal(environmentOf(spec.jobTemplate).ROTATE, 'now');
  assert.deepEqual(mountsOf(spec.jobTemplate), {
    '/secrets/ca': 'region-ca-cert',
    '/secrets/admin': 'keycloak-admin',
    '/etc/soma': region.find('ConfigMap', 'keycloak-realm').metadata.name,
    '/tmp': 'scratch',
  });
});

test('it is published only when asked for', () => {
  const { region } = fixture();
  assert.equal(region.find('Service', 'keycloak').spec.type, 'ClusterIP');
  const published = new TestRegion();
  const make = (exposure: { nodePort: number }, id: string) =>
    new Keycloak(published.chart('identity'), id, {
      image: image('keycloak'),
      bootstrapImage: image('bootstrap'),
      plan: published.plan,
      database: postgresOf(published, `${id}-db`).database('keycloak'),
      hostname: 'https://localhost:8444',
      certificateAddresses: ['127.0.0.1'],
      realm: { name: 'somagent', clients: [] },
      exposure,
    });
  make({ nodePort: 30_444 }, 'keycloak');
  const { spec } = published.find('Service', 'keycloak');
  assert.equal(spec.type, 'NodePort');
  assert.deepEqual(spec.ports, [{ name: 'https', port: 8443, targetPort: 8443, nodePort: 30_444 }]);
  const { ingress } = published.find('NetworkPolicy', 'keycloak').spec;
  assert.ok(ingress.some((rule: object) => JSON.stringify(rule) === '{"ports":[{"port":8443,"protocol":"TCP"}]}'));
  assert.throws(() => make({ nodePort: 443 }, 'other'), {
    message: 'exposure.nodePort is 443; allowed: a whole number from 30000 to 32767. Use for instance 30000.',
  });
});

test('a pod signs in by a token for the realm only, of the ServiceAccount that the realm declares', () => {
  const { region } = fixture();
  const subjects = String(environmentOf(region.find('Job', 'keycloak-realm')).WORKLOAD_SUBJECTS);
  assert.deepEqual(JSON.parse(subjects), { 'somagent-identity': 'system:serviceaccount:north-services:identity' });
  const server = region.find('Deployment', 'keycloak').spec.template.spec;
  const mounts = server.containers[0].volumeMounts.map(({ mountPath }: { mountPath: string }) => mountPath);
  assert.ok(mounts.includes('/var/run/secrets/kubernetes.io/serviceaccount'), 'no token to fetch the keys with');
  const stranger = fixture();
  const network = new PodNetwork(stranger.region.chart('services'), 'other', {
    ...{ product: 'other', instance: 'other', component: 'server', name: 'other' },
  });
  assert.throws(
    () => stranger.keycloak.workloadClient('somagent-identity', network),
    /realm\.clients\.somagent-identity\.workload is .*identity.*; allowed: system:serviceaccount:north-services:other/,
  );
  assert.throws(() => stranger.keycloak.workloadClient('acme-agent', network), /acme-agent\.workload is undefined/);
});
