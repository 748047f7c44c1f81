import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentOf, image, keycloakOf, postgresOf, TestRegion, temporalOf, wholeRegion } from '../testing.ts';
import { Gateway, type GatewayProps } from './gateway.ts';

function gateway(props: Partial<GatewayProps> = {}) {
  const region = new TestRegion();
  const postgres = postgresOf(region);
  const object = new Gateway(region.chart('services'), 'gateway', {
    image: image('gateway'),
    plan: region.plan,
    temporal: temporalOf(region, postgres),
    database: postgres.database('sessions'),
    identity: keycloakOf(region, postgres),
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
