import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseModels } from '@somagent/models';
import { environmentOf, mountsOf, TestRegion, wholeRegion } from '../testing.ts';

test('one line of wiring gives each server its policy, credentials and variables', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const worker = region.find('Deployment', 'orchestrator');
  assert.deepEqual(environmentOf(worker), {
    TEMPORAL_ADDRESS: 'temporal-frontend.north-runtime.svc:7233',
    TEMPORAL_NAMESPACE: 'somagent',
    TEMPORAL_TLS_DIR: '/secrets/temporal-client',
    TEMPORAL_SERVER_NAME: 'temporal-frontend.north-runtime.svc',
    PGHOST: 'postgres.north-data.svc',
    PGPORT: '5432',
    PGDATABASE: 'sessions',
    PG_CREDENTIALS_DIR: '/secrets/postgres',
    PG_CA_FILE: '/secrets/ca/ca.crt',
    SLM_URL: 'https://slm.north-runtime.svc:8000/v1',
    SLM_MODEL: 'soma-tiny',
    SLM_TOKEN_FILE: '/var/run/secrets/somagent/slm/token',
    SLM_CA_FILE: '/secrets/ca/ca.crt',
    KAFKA_BROKERS: 'kafka.north-data.svc:9093',
    KAFKA_CREDENTIALS_DIR: '/secrets/kafka',
    KAFKA_CA_FILE: '/secrets/ca/ca.crt',
    POLICY_URL: 'https://object-store.north-data.svc:7070/policy',
    POLICY_CREDENTIALS_DIR: '/secrets/policy',
    POLICY_CA_FILE: '/secrets/ca/ca.crt',
    POLICY_PUBLIC_KEY_FILE: '/secrets/policy-key/public.pem',
    POLICY_CACHE_DIR: '/var/cache/policy',
    IDENTITY_URL: 'https://identity.north-services.svc:8443',
    IDENTITY_CA_FILE: '/secrets/ca/ca.crt',
    IDENTITY_TOKEN_FILE: '/var/run/secrets/somagent/identity/token',
    TASK_QUEUE: 'sessions',
    HEALTH_PORT: '8081',
    MODELS_FILE: '/config/models/models.json',
    SESSION_MODEL: 'soma-tiny',
  });
  assert.deepEqual(mountsOf(worker), {
    '/secrets/temporal-client': 'temporal-client-tls',
    '/secrets/postgres': 'postgres-role-sessions',
    '/secrets/ca': 'region-ca-cert',
    '/secrets/kafka': 'kafka-user-orchestrator',
    '/secrets/policy': 'object-store-user-policy-reader',
    '/secrets/policy-key': 'policy-signing-public',
    '/config/models': region.find('ConfigMap', 'orchestrator-models').metadata.name,
    '/tmp': 'scratch',
    '/var/cache/policy': 'scratch',
    '/var/run/secrets/somagent/identity': 'claim',
    '/var/run/secrets/somagent/slm': 'claim',
  });
  const targets = region
    .find('NetworkPolicy', 'orchestrator')
    .spec.egress.map((rule: { to: [{ podSelector: { matchLabels: Record<string, string> } }] }) =>
      Object.values(rule.to[0].podSelector.matchLabels),
    );
  assert.deepEqual(targets, [['temporal'], ['postgres'], ['slm'], ['kafka'], ['object-store'], ['identity']]);
});

test('migrations come before the worker', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const order = region.manifests().map(({ metadata, kind }) => `${kind} ${metadata.name}`);
  const job = region.find('Job', 'orchestrator-migrate');
  assert.deepEqual(job.spec.template.spec.containers[0].command, ['node', '/app/main.js', 'migrate']);
  assert.ok(order.indexOf(`Job ${job.metadata.name}`) < order.indexOf('Deployment orchestrator'));
});

test('its file of models names what the model server has, and it can be read', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const { providers, models } = parseModels(
    JSON.parse(region.find('ConfigMap', 'orchestrator-models').data['models.json']),
  );
  assert.deepEqual(Object.keys(models), ['soma-tiny', 'soma-tiny-q8']);
  assert.deepEqual(models['soma-tiny']?.chain, [{ provider: 'slm', model: 'soma-tiny' }]);
  const { slm } = providers;
  assert.ok(slm?.kind === 'slm');
  assert.deepEqual(
    [slm.url, slm.tokenFile],
    ['https://slm.north-runtime.svc:8000/v1', '/var/run/secrets/somagent/slm/token'],
  );
});
