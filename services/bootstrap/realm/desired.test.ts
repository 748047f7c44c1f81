import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { realmSchema } from '../realm-types.ts';
import { agentClient, isCovered, mappers, realmSettings, resourceServer } from './desired.ts';

const realm = realmSchema.parse({
  name: 'somagent',
  clients: [{ clientId: 'acme-agent', tenant: 'acme', audiences: ['somagent-gateway'], accessTokenSeconds: 120 }],
});
const [client] = realm.clients;
assert.ok(client);

describe('realm', () => {
  it('is protected without a word about it', () => {
    const settings = realmSettings(realm);
    assert.equal(settings.sslRequired, 'all');
    assert.equal(settings.bruteForceProtected, true);
    assert.equal(settings.registrationAllowed, false);
    assert.equal(settings.accessTokenLifespan, 300);
  });

  it('gives an agent the client-credentials flow only', () => {
    const wish = agentClient(client, 'its secret');
    assert.equal(wish.serviceAccountsEnabled, true);
    assert.deepEqual(
      [wish.standardFlowEnabled, wish.implicitFlowEnabled, wish.directAccessGrantsEnabled, wish.publicClient],
      [false, false, false, false],
    );
    assert.deepEqual(wish.attributes, { 'access.token.lifespan': '120' });
  });

  it('gives a resource server no flow at all', () => {
    const wish = resourceServer('somagent-gateway');
    assert.deepEqual([wish.bearerOnly, wish.serviceAccountsEnabled, wish.secret], [true, false, undefined]);
  });

  it('puts the tenant and the audience into access tokens', () => {
    assert.deepEqual(
      mappers(client).map(({ protocolMapper, config }) => [
        protocolMapper,
        config?.['claim.value'] ?? config?.['included.custom.audience'],
      ]),
      [
        ['oidc-hardcoded-claim-mapper', 'acme'],
        ['oidc-audience-mapper', 'somagent-gateway'],
      ],
    );
  });

  it('refuses a field that it does not know', () => {
    const parsed = realmSchema.safeParse({ name: 'somagent', clients: [], users: [] });
    assert.equal(parsed.success, false);
  });
});

describe('isCovered', () => {
  it('looks at the wished fields only', () => {
    assert.equal(isCovered({ a: 1, b: { c: 'x' } }, { a: 1, b: { c: 'x', d: 2 }, e: 3 }), true);
    assert.equal(isCovered({ a: 1, b: { c: 'x' } }, { a: 1, b: { c: 'y' } }), false);
    assert.equal(isCovered({ a: 1 }, { a: '1' }), false);
    assert.equal(isCovered({ a: [1, 2] }, { a: [1] }), false);
    assert.equal(isCovered({ a: {} }, {}), true);
  });

  it('holds for any value and itself, and for no changed one', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => assert.equal(isCovered(value, structuredClone(value)), true)));
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.integer(), { minKeys: 1 }), (wish) => {
        const [key = ''] = Object.keys(wish);
        const entries = Object.entries(wish).map(([name, value]) => [name, name === key ? value + 1 : value]);
        assert.equal(isCovered(wish, Object.fromEntries(entries)), false);
      }),
    );
  });
});
