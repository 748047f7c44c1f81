import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseModels } from '@somagent/models';
import {
  environmentOf,
  governanceOf,
  image,
  kafkaOf,
  keycloakOf,
  type Manifest,
  mountsOf,
  postgresOf,
  servicesOnKafka,
  slmOf,
  TestRegion,
  temporalOf,
  wholeRegion,
} from '../testing.ts';
import { Gateway, type GatewayProps } from './gateway.ts';

function gateway(props: Partial<GatewayProps> = {}, region = new TestRegion()) {
  const postgres = postgresOf(region);
  const keycloak = keycloakOf(region, postgres);
  const object = new Gateway(region.chart('services'), 'gateway', {
    image: image('gateway'),
    plan: region.plan,
    temporal: temporalOf(region, postgres),
    database: postgres.database('sessions').reader('sessions_gateway'),
    identity: keycloak,
    ...governanceOf(region, postgres, keycloak, kafkaOf(region, 'kafka', servicesOnKafka)),
    ...props,
  });
  return { region, object };
}

test('it verifies the tokens of its Keycloak for its audience', () => {
  const { region, object } = gateway();
  assert.equal(object.url, 'https://gateway.north-services.svc:8443');
  const env = environmentOf(region.find('Deployment', 'gateway'));
  assert.equal(env.OIDC_ISSUER, 'https://login.example.com/realms/somagent');
  assert.equal(
    env.OIDC_JWKS_URL,
    'https://keycloak.north-identity.svc:8443/realms/somagent/protocol/openid-connect/certs',
  );
  assert.equal(env.OIDC_AUDIENCE, 'somagent-gateway');
  assert.equal(env.PORT, '8443');
});

test('it reaches what governs its requests, each with a credential of its own, and nothing else', () => {
  const { region } = gateway();
  const object = region.find('Deployment', 'gateway');
  const env = environmentOf(object);
  assert.equal(env.IDENTITY_URL, 'https://identity.north-services.svc:8443');
  assert.equal(env.POLICY_URL, 'https://object-store.north-data.svc:7070/policy');
  assert.equal(env.OPENFGA_URL, 'https://openfga.north-identity.svc:8443');
  assert.equal(env.RATE_LIMIT_PER_MINUTE, undefined);
  const mounts = mountsOf(object);
  assert.equal(mounts['/secrets/postgres'], 'postgres-role-sessions-gateway');
  assert.equal(mounts['/secrets/policy'], 'object-store-user-policy-reader');
  assert.equal(mounts['/secrets/policy-key'], 'policy-signing-public');
  assert.equal(mounts['/var/cache/policy'], 'scratch');
  const callers = environmentOf(region.find('Deployment', 'identity')).WORKLOAD_CALLERS;
  assert.equal(callers, 'system:serviceaccount:north-services:gateway');
  const reached = region
    .find('NetworkPolicy', 'gateway')
    .spec.egress.flatMap(({ to = [] }: Manifest) => to)
    .flatMap(({ podSelector }: Manifest) => podSelector?.matchLabels['somagent.dev/network'] ?? []);
  assert.deepEqual(reached.sort(), [
    'identity',
    'kafka',
    'keycloak',
    'object-store',
    'openfga',
    'postgres',
    'temporal',
  ]);
});

test('it offers the models of the servers that it is wired to, at their prices, and reaches them as itself', () => {
  const region = new TestRegion();
  const slm = slmOf(region);
  const asked: string[] = [];
  const embeddings = {
    url: 'https://embeddings.north-services.svc:8443/v1',
    model: 'all-minilm',
    connect: () => {
      asked.push('embeddings');
      return { env: {}, secrets: [], workloadTokens: [{ target: 'embeddings' }] };
    },
  };
  gateway({ slm, embeddings, modelPrices: { 'all-minilm': { prompt: 7 } } }, region);
  const object = region.find('Deployment', 'gateway');
  assert.equal(environmentOf(object).MODELS_FILE, '/config/models/models.json');
  const file = parseModels(JSON.parse(region.find('ConfigMap', 'gateway-models').data['models.json']));
  assert.deepEqual(Object.keys(file.models), [...slm.models, 'all-minilm']);
  assert.deepEqual(file.models['all-minilm']?.chain, [{ provider: 'embeddings', model: 'all-minilm' }]);
  assert.equal(file.models['all-minilm']?.kind, 'embedding');
  const { slm: own, embeddings: vectors } = file.providers;
  assert.ok(own?.kind === 'slm' && vectors?.kind === 'openai');
  assert.deepEqual([own.url, own.tokenFile], [slm.url, '/var/run/secrets/somagent/slm/token']);
  assert.deepEqual(own.prices[slm.model], { prompt: 50_000, completion: 200_000 });
  assert.equal(vectors.credentialFile, '/var/run/secrets/somagent/embeddings/token');
  assert.deepEqual(vectors.prices['all-minilm'], { prompt: 7, completion: 0 });
  assert.deepEqual(asked, ['embeddings']);
  const reached = region
    .find('NetworkPolicy', 'gateway')
    .spec.egress.flatMap(({ to = [] }: Manifest) => to)
    .flatMap(({ podSelector }: Manifest) => podSelector?.matchLabels['somagent.dev/network'] ?? []);
  assert.ok(reached.includes('slm'), reached.join());
});

test('without a server of models it offers none', () => {
  const { region } = gateway();
  const { data } = region.find('ConfigMap', 'gateway-models');
  assert.deepEqual(JSON.parse(data['models.json']), { providers: {}, models: {} });
});

test('limits are passed on when they are given', () => {
  const { region } = gateway({ limits: { subjectMinute: 60, tenantMinute: 600, tenantDay: 10_000 } });
  const env = environmentOf(region.find('Deployment', 'gateway'));
  const limits = [env.RATE_LIMIT_PER_MINUTE, env.TENANT_RATE_LIMIT_PER_MINUTE, env.TENANT_QUOTA_PER_DAY];
  assert.deepEqual(limits, ['60', '600', '10000']);
});

test('two pods, one of which may be away', () => {
  const { region } = gateway();
  assert.equal(region.find('Deployment', 'gateway').spec.replicas, 2);
  assert.equal(region.find('PodDisruptionBudget', 'gateway').spec.maxUnavailable, 1);
});

test('published, its certificate names what a developer types', () => {
  const { region } = gateway({ exposure: { nodePort: 30_443 } });
  assert.equal(region.find('Service', 'gateway').spec.ports[0].nodePort, 30_443);
  const certificate = region.plan.close().secrets.find(({ name }) => name === 'gateway-tls');
  assert.deepEqual(certificate, {
    kind: 'certificate',
    commonName: 'gateway',
    dnsNames: ['gateway', 'gateway.north-services.svc', 'localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
    name: 'gateway-tls',
    namespaces: ['north-services'],
  });
});

test('unpublished, nobody is admitted', () => {
  const region = new TestRegion();
  wholeRegion(region);
  assert.deepEqual(region.find('NetworkPolicy', 'gateway').spec.ingress, []);
});
