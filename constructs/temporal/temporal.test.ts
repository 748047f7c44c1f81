import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'yaml';
import { environmentOf, image, type Manifest, mountsOf, postgresOf, TestRegion, temporalOf } from '../testing.ts';
import { Temporal } from './temporal.ts';

function fixture() {
  const region = new TestRegion();
  const temporal = temporalOf(region, postgresOf(region));
  return { region, temporal };
}

function serverFile(region: TestRegion) {
  const text: string = region.find('ConfigMap', 'temporal-config').data['temporal.yaml'];
  return { text, config: parse(text) };
}

test('each service is a Deployment of the same image with its own ports', () => {
  const { region } = fixture();
  const ports = { frontend: [7233, 6933], history: [7234, 6934], matching: [7235, 6935], worker: [7239, 6939] };
  for (const [service, expected] of Object.entries(ports)) {
    const { spec } = region.find('Deployment', `temporal-${service}`);
    const [container] = spec.template.spec.containers;
    assert.deepEqual(
      container.ports.map(({ containerPort }: Manifest) => containerPort),
      expected,
    );
    assert.deepEqual(container.command.slice(-3), ['start', '--service', service]);
    assert.deepEqual(container.readinessProbe.tcpSocket, { port: expected[0] });
  }
});

test('the file is a template for the pod address, and every call has certificates on both sides', () => {
  const { text, config } = serverFile(fixture().region);
  assert.equal(text.split('\n')[0], '# enable-template');
  assert.equal(config.global.membership.broadcastAddress, '{{ env `POD_IP` }}');
  for (const side of [config.global.tls.internode, config.global.tls.frontend]) {
    assert.equal(side.server.requireClientAuth, true);
    assert.deepEqual(side.server.clientCaFiles, ['/secrets/tls/ca.crt']);
    assert.equal(side.client.disableHostVerification, undefined);
  }
  assert.equal(config.global.tls.internode.client.serverName, 'temporal-internode');
  assert.equal(config.global.tls.systemWorker.client.serverName, 'temporal-frontend.north-runtime.svc');
});

test('both stores are reached with TLS, verified, by the owner whose password is a file', () => {
  const { persistence } = serverFile(fixture().region).config;
  assert.equal(persistence.numHistoryShards, 128);
  for (const [store, name] of [
    ['default', 'temporal'],
    ['visibility', 'temporal_visibility'],
  ] as const) {
    const { sql } = persistence.datastores[store];
    assert.equal(sql.databaseName, name);
    assert.equal(sql.connectAddr, 'postgres.north-data.svc:5432');
    assert.equal(sql.user, 'temporal');
    assert.equal(sql.password, undefined);
    assert.deepEqual(sql.passwordCommand, { command: 'cat', args: ['/secrets/postgres/password'] });
    assert.deepEqual(sql.tls, { enabled: true, caFile: '/secrets/ca/ca.crt', enableHostVerification: true });
  }
});

test('the schema comes before the servers and the namespace after them', () => {
  const { region } = fixture();
  const schema = region.find('Job', 'temporal-schema');
  assert.equal(environmentOf(schema).TEMPORAL_VISIBILITY_DATABASE, 'temporal_visibility');
  const namespace = region.find('Job', 'temporal-namespace');
  assert.deepEqual(environmentOf(namespace), {
    TEMPORAL_ADDRESS: 'temporal-frontend.north-runtime.svc:7233',
    TEMPORAL_NAMESPACE: 'somagent',
    TEMPORAL_TLS_DIR: '/secrets/temporal-client',
    TEMPORAL_SERVER_NAME: 'temporal-frontend.north-runtime.svc',
    RETENTION_DAYS: '30',
  });
  assert.equal(mountsOf(namespace)['/secrets/temporal-client'], 'temporal-client-tls');
  const order = region.manifests().map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  const position = (object: Manifest) => order.indexOf(`${object.kind} ${object.metadata.name}`);
  const frontend = position(region.find('Deployment', 'temporal-frontend'));
  assert.ok(position(schema) < frontend && frontend < position(namespace));
});

test('wrong props say what to do', () => {
  const region = new TestRegion();
  const postgres = postgresOf(region);
  const make = (id: string, props: object) => () =>
    new Temporal(region.chart('runtime'), id, {
      image: image('temporal'),
      bootstrapImage: image('bootstrap'),
      plan: region.plan,
      database: postgres.database('temporal'),
      visibility: postgres.database('temporal_visibility'),
      ...props,
    });
  assert.throws(make('a', { numHistoryShards: 0 }), {
    message: 'numHistoryShards is 0; allowed: a whole number from 1 to 16384. Use for instance 1.',
  });
  assert.throws(make('b', { visibility: postgres.database('keycloak') }), {
    message:
      'visibility is "keycloak of keycloak on postgres.north-data.svc"; allowed: a database of temporal on ' +
      'postgres.north-data.svc. Declare both databases on the same server with the same owner.',
  });
});
