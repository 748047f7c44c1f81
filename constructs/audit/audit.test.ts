import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Postgres } from '../postgres/index.ts';
import {
  bootstrapOf,
  environmentOf,
  governanceOf,
  image,
  kafkaOf,
  keycloakOf,
  mountsOf,
  postgresOf,
  TestRegion,
} from '../testing.ts';
import { Audit, AuditWitness } from './index.ts';

function auditOf(region: TestRegion): void {
  const postgres = postgresOf(region);
  const keycloak = keycloakOf(region, postgres);
  const users = ['audit', 'gateway', 'identity'].map((name) => ({ name }));
  const kafka = kafkaOf(region, 'kafka', { declared: { topics: [], users, acls: [] } });
  const { control, policy } = governanceOf(region, postgres, keycloak, kafka);
  const own = new Postgres(region.chart('data'), 'records', {
    image: image('postgres'),
    bootstrapImage: image('bootstrap'),
    plan: region.plan,
    databases: [{ name: 'audit', owner: 'audit', readers: ['audit_writer'] }],
  });
  const { plan } = region;
  const witness = new AuditWitness(region.chart('identity'), 'audit-witness', { image: image('audit'), plan });
  new Audit(region.chart('services'), 'audit', {
    image: image('audit'),
    plan,
    database: own.database('audit'),
    witness,
    identity: keycloak,
    control,
    policy,
    kafka: kafka.user('audit'),
  });
}

test('the service writes as a role that owns nothing; only the migrations come as the owner', () => {
  const region = new TestRegion();
  auditOf(region);
  assert.equal(mountsOf(region.find('Deployment', 'audit'))['/secrets/postgres'], 'records-role-audit-writer');
  const job = region.find('Job', 'audit-migrate');
  assert.equal(mountsOf(job)['/secrets/postgres'], 'records-role-audit');
  assert.equal(environmentOf(job).AUDIT_ROLE, 'audit_writer');
  const order = region.manifests().map(({ metadata, kind }) => `${kind} ${metadata.name}`);
  assert.ok(order.indexOf(`Job ${job.metadata.name}`) < order.indexOf('Deployment audit'));
});

test('one line of wiring gives the service its witness, events, policies and control', () => {
  const region = new TestRegion();
  auditOf(region);
  const server = region.find('Deployment', 'audit');
  assert.equal(server.spec.strategy.type, 'Recreate');
  assert.deepEqual(environmentOf(server), {
    PGHOST: 'records.north-data.svc',
    PGPORT: '5432',
    PGDATABASE: 'audit',
    PG_CREDENTIALS_DIR: '/secrets/postgres',
    PG_CA_FILE: '/secrets/ca/ca.crt',
    LOG_ORIGIN: 'north.somagent/audit',
    WITNESS_NAME: 'north.somagent/witness',
    WITNESS_URL: 'https://audit-witness.north-identity.svc:8443',
    WITNESS_CA_FILE: '/secrets/ca/ca.crt',
    WITNESS_PUBLIC_KEY_FILE: '/secrets/witness-key/public.pem',
    IDENTITY_URL: 'https://identity.north-services.svc:8443',
    IDENTITY_CA_FILE: '/secrets/ca/ca.crt',
    IDENTITY_TOKEN_FILE: '/var/run/secrets/somagent/identity/token',
    POLICY_URL: 'https://object-store.north-data.svc:7070/policy',
    POLICY_CREDENTIALS_DIR: '/secrets/policy',
    POLICY_CA_FILE: '/secrets/ca/ca.crt',
    POLICY_PUBLIC_KEY_FILE: '/secrets/policy-key/public.pem',
    POLICY_CACHE_DIR: '/var/cache/policy',
    KAFKA_BROKERS: environmentOf(region.find('Deployment', 'identity')).KAFKA_BROKERS,
    KAFKA_CREDENTIALS_DIR: '/secrets/kafka',
    KAFKA_CA_FILE: '/secrets/ca/ca.crt',
    PORT: '8443',
    HEALTH_PORT: '8081',
    TLS_DIR: '/secrets/audit-tls',
    LOG_KEY_FILE: '/secrets/log-key/private.pem',
    OIDC_ISSUER: 'https://login.example.com/realms/somagent',
    OIDC_JWKS_URL: environmentOf(region.find('Deployment', 'identity')).OIDC_JWKS_URL,
    OIDC_CA_FILE: '/secrets/ca/ca.crt',
    OIDC_AUDIENCE: 'somagent-gateway',
  });
});

test('neither side has the private key of the other, and they lie in different namespaces', () => {
  const region = new TestRegion();
  auditOf(region);
  const [server, witness] = [region.find('Deployment', 'audit'), region.find('StatefulSet', 'audit-witness')];
  assert.equal(mountsOf(server)['/secrets/log-key'], 'audit-witness-log-key');
  assert.equal(mountsOf(server)['/secrets/witness-key'], 'audit-witness-key-public');
  assert.equal(mountsOf(witness)['/secrets/witness-key'], 'audit-witness-key');
  assert.equal(mountsOf(witness)['/secrets/log-key'], 'audit-witness-log-key-public');
  const plan = JSON.parse(JSON.stringify(planOf(region)));
  const places = Object.fromEntries(
    plan.secrets
      .filter(({ name }: { name: string }) => /^audit-witness.*key/.test(name))
      .map(({ name, kind, namespaces }: { name: string; kind: string; namespaces: string[] }) => [
        name,
        `${kind} in ${namespaces.join()}`,
      ]),
  );
  assert.deepEqual(places, {
    'audit-witness-key': 'signing-key in north-identity',
    'audit-witness-key-public': 'public-key in north-services',
    'audit-witness-log-key': 'signing-key in north-services',
    'audit-witness-log-key-public': 'public-key in north-identity',
  });
});

function planOf(region: TestRegion) {
  bootstrapOf(region);
  const config = region
    .manifests()
    .find(({ kind, data }) => kind === 'ConfigMap' && data?.['plan.json']?.includes('"authority"'));
  return JSON.parse(config.data['plan.json']);
}

test('only the log reaches the witness, and the witness reaches nobody', () => {
  const region = new TestRegion();
  auditOf(region);
  const { spec } = region.find('NetworkPolicy', 'audit-witness');
  assert.equal(spec.ingress.filter(({ from }: { from?: unknown[] }) => from !== undefined).length, 1);
  assert.equal(spec.egress?.length ?? 0, 0);
});

test('the witness keeps its head on a volume of its own and is alone', () => {
  const region = new TestRegion();
  auditOf(region);
  const { spec } = region.find('StatefulSet', 'audit-witness');
  assert.equal(spec.replicas, 1);
  assert.deepEqual(spec.volumeClaimTemplates[0].spec.resources, { requests: { storage: '16Mi' } });
  const [container] = spec.template.spec.containers;
  assert.ok(container.volumeMounts.some(({ mountPath }: { mountPath: string }) => mountPath === '/var/lib/witness'));
  assert.deepEqual(container.resources.requests, { cpu: '10m', memory: '96Mi' });
});
