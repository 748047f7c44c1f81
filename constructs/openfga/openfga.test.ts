import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeploymentWorkload } from '../core/workload.ts';
import { Postgres } from '../postgres/postgres.ts';
import { environmentOf, image, mountsOf, TestRegion } from '../testing.ts';
import { OpenFga, type OpenFgaProps } from './openfga.ts';

function openFga(props: Partial<OpenFgaProps> = {}) {
  const region = new TestRegion();
  const postgres = new Postgres(region.chart('data'), 'postgres', {
    image: image('postgres'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    databases: [{ name: 'openfga', owner: 'openfga' }],
  });
  const openfga = new OpenFga(region.chart('identity'), 'openfga', {
    image: image('openfga'),
    relationsImage: image('relations'),
    plan: region.plan,
    database: postgres.database('openfga'),
    ...props,
  });
  return { region, openfga };
}

test('no mode without TLS or without a key', () => {
  const { region } = openFga();
  const server = region.find('Deployment', 'openfga');
  const environment = environmentOf(server);
  assert.equal(environment.OPENFGA_HTTP_TLS_ENABLED, 'true');
  assert.equal(environment.OPENFGA_GRPC_TLS_ENABLED, 'true');
  assert.equal(environment.OPENFGA_GRPC_ADDR, '127.0.0.1:8081');
  assert.equal(environment.OPENFGA_AUTHN_METHOD, 'preshared');
  assert.deepEqual(environment.OPENFGA_AUTHN_PRESHARED_KEYS, { secretKeyRef: { name: 'openfga-key', key: 'token' } });
  assert.equal(environment.OPENFGA_PLAYGROUND_ENABLED, 'false');
  assert.equal(environment.OPENFGA_METRICS_ENABLED, 'false');
  assert.equal(
    environment.OPENFGA_DATASTORE_URI,
    'postgres://postgres.north-data.svc:5432/openfga?sslmode=verify-full&sslrootcert=/secrets/ca/ca.crt',
  );
  assert.equal(environment.GOMEMLIMIT, '230MiB');
  assert.deepEqual(mountsOf(server), {
    '/secrets/tls': 'openfga-tls',
    '/secrets/ca': 'region-ca-cert',
    '/tmp': 'scratch',
  });
  const { containers } = server.spec.template.spec;
  assert.deepEqual(containers[0].readinessProbe.httpGet, { scheme: 'HTTPS', port: 8443, path: '/healthz' });
  assert.equal(containers[0].resources.requests.cpu, '30m');
});

test('the certificate is good for the server itself, which verifies its own gRPC side', () => {
  const { region } = openFga();
  const tls = region.plan.close().secrets.find(({ name }) => name === 'openfga-tls');
  assert.ok(tls?.kind === 'certificate');
  assert.deepEqual(tls.dnsNames, ['openfga', 'openfga.north-identity.svc']);
  assert.deepEqual(tls.ipAddresses, ['127.0.0.1']);
});

test('the migration comes before the server, in the image that has both programs', () => {
  const { region } = openFga();
  const order = region.manifests().map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  const job = region.find('Job', 'openfga-migrate');
  assert.equal(job.spec.template.spec.containers[0].image, image('relations'));
  assert.equal(environmentOf(job).PGDATABASE, 'openfga');
  assert.ok(order.indexOf(`Job ${job.metadata.name}`) < order.indexOf('Deployment openfga'));
});

test('a client gets the address, the key as a file and the store, and both sides of the way are open', () => {
  const { region, openfga } = openFga({ store: 'blue' });
  new DeploymentWorkload(region.chart('services'), 'gateway', {
    product: 'gateway',
    instance: 'gateway',
    component: 'gateway',
    image: image('gateway'),
    connections: [openfga.client()],
    resources: { cpu: '50m', memory: '96Mi' },
    probes: { readiness: { scheme: 'http', port: 8081, path: '/readyz' } },
  });
  const gateway = region.find('Deployment', 'gateway');
  assert.deepEqual(environmentOf(gateway), {
    OPENFGA_URL: 'https://openfga.north-identity.svc:8443',
    OPENFGA_TOKEN_FILE: '/secrets/openfga/token',
    OPENFGA_CA_FILE: '/secrets/ca/ca.crt',
    OPENFGA_STORE: 'blue',
  });
  assert.equal(mountsOf(gateway)['/secrets/openfga'], 'openfga-key');
  const admitted = region.find('NetworkPolicy', 'openfga').spec.ingress;
  assert.deepEqual(
    admitted.map((rule: { ports: unknown }) => rule.ports),
    [[{ protocol: 'TCP', port: 8443 }]],
  );
});

test('fewer than two connections are refused with the field', () => {
  assert.throws(() => openFga({ maxConnections: 1 }), /maxConnections/);
});
