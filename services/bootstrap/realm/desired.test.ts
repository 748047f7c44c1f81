import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Realm, realmSchema } from '../realm-types.ts';
import { agentClient, agentScopes, mappers, publicClient, realmSettings, resourceServer } from './desired.ts';

const declared = {
  name: 'somagent',
  roles: [{ name: 'agent', description: 'Runs sessions' }],
  scopes: [
    { name: 'somagent', description: 'Who it is', claims: ['tenant', 'teams', 'roles'], roles: ['agent'] },
    { name: 'gateway', description: 'For the gateway', audiences: ['somagent-gateway'] },
  ],
  tenants: [{ name: 'acme', teams: ['blue'] }],
  clients: [
    { clientId: 'acme-agent', tenant: 'acme', roles: ['agent'], scopes: ['somagent'], accessTokenSeconds: 120 },
  ],
  publicClients: [
    { clientId: 'cli', scopes: ['somagent'], redirectUris: ['http://127.0.0.1/callback'], deviceGrant: true },
    { clientId: 'console', scopes: ['somagent'], redirectUris: ['https://console.example.com/callback'] },
  ],
} satisfies Realm;
const realm = realmSchema.parse(declared);
const [client] = realm.clients;
const [cli, console] = realm.publicClients;
const [who, gateway] = realm.scopes;
assert.ok(client && cli && console && who && gateway);

describe('realm', () => {
  it('is protected without a word about it', () => {
    const settings = realmSettings(realm);
    assert.equal(settings.sslRequired, 'all');
    assert.equal(settings.bruteForceProtected, true);
    assert.equal(settings.registrationAllowed, false);
    assert.equal(settings.accessTokenLifespan, 300);
    assert.deepEqual([settings.revokeRefreshToken, settings.refreshTokenMaxReuse], [true, 0]);
  });

  it('gives an agent the client-credentials flow only, and no role by itself', () => {
    const wish = agentClient(client, { secret: 'its secret' });
    assert.equal(wish.serviceAccountsEnabled, true);
    assert.deepEqual(
      [wish.standardFlowEnabled, wish.implicitFlowEnabled, wish.directAccessGrantsEnabled, wish.publicClient],
      [false, false, false, false],
    );
    assert.equal(wish.fullScopeAllowed, false);
    assert.deepEqual(wish.attributes, { 'access.token.lifespan': '120' });
    assert.deepEqual(agentScopes(client), ['basic', 'service_account', 'somagent']);
  });

  it('admits a pod by the token of its ServiceAccount, and by no secret', () => {
    const subject = 'system:serviceaccount:local-services:identity';
    const wish = agentClient(client, { subject });
    assert.equal(wish.clientAuthenticatorType, 'federated-jwt');
    assert.equal('secret' in wish, false);
    assert.deepEqual(wish.attributes, {
      'jwt.credential.issuer': 'kubernetes',
      'jwt.credential.sub': subject,
      'access.token.lifespan': '120',
    });
  });

  it('lets people sign in with PKCE only, and tells the listener when they leave', () => {
    const wish = publicClient(cli, 'https://identity.test/logout');
    assert.deepEqual(
      [wish.publicClient, wish.standardFlowEnabled, wish.directAccessGrantsEnabled, wish.implicitFlowEnabled],
      [true, true, false, false],
    );
    assert.deepEqual(wish.attributes, {
      'pkce.code.challenge.method': 'S256',
      'oauth2.device.authorization.grant.enabled': 'true',
      'backchannel.logout.url': 'https://identity.test/logout',
      'backchannel.logout.session.required': 'true',
      'backchannel.logout.revoke.offline.tokens': 'true',
    });
    assert.deepEqual([wish.webOrigins, wish.redirectUris], [[], ['http://127.0.0.1/callback']]);
    assert.deepEqual(publicClient(console, undefined).webOrigins, ['https://console.example.com']);
    assert.equal(publicClient(console, undefined).attributes?.['oauth2.device.authorization.grant.enabled'], 'false');
  });

  it('gives a resource server no flow at all', () => {
    const wish = resourceServer('somagent-gateway');
    assert.deepEqual([wish.bearerOnly, wish.serviceAccountsEnabled, wish.secret], [true, false, undefined]);
  });

  it('takes the tenant and the teams from groups, and the roles from the realm', () => {
    assert.deepEqual(
      mappers(who).map(({ name, protocolMapper, config }) => [name, protocolMapper, config?.['user.attribute']]),
      [
        ['tenant', 'oidc-usermodel-attribute-mapper', 'tenant'],
        ['teams', 'oidc-usermodel-attribute-mapper', 'team'],
        ['roles', 'oidc-usermodel-realm-role-mapper', undefined],
      ],
    );
    assert.deepEqual(
      mappers(gateway).map(({ config }) => config?.['included.custom.audience']),
      ['somagent-gateway'],
    );
  });
});

const wrong: readonly [string, object, RegExp][] = [
  ['a field that it does not know', { users: [] }, /users/],
  [
    'a role that is not declared',
    { clients: [{ ...declared.clients[0], roles: ['king'] }] },
    /client acme-agent: role king is not declared; declared are agent/,
  ],
  [
    'a scope that is not declared',
    { clients: [{ ...declared.clients[0], scopes: ['all'] }] },
    /scope all is not declared/,
  ],
  [
    'a tenant that is not declared',
    { clients: [{ ...declared.clients[0], tenant: 'evil' }] },
    /tenant evil is not declared; declared are acme/,
  ],
  [
    'a team of no tenant',
    { clients: [{ ...declared.clients[0], tenant: undefined, teams: ['blue'] }] },
    /teams without a tenant/,
  ],
  [
    'a team that the tenant does not have',
    { clients: [{ ...declared.clients[0], teams: ['red'] }] },
    /team of acme red is not declared; declared are blue/,
  ],
  ['two clients of one name', { resourceServers: ['acme-agent'] }, /client acme-agent is declared twice/],
];
for (const [what, change, message] of wrong) {
  it(`refuses ${what}`, () => {
    const { success, error } = realmSchema.safeParse({ ...declared, ...change });
    assert.equal(success, false);
    assert.match(error?.message ?? '', message);
  });
}
