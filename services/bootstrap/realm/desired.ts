import type ClientRepresentation from '@keycloak/keycloak-admin-client/lib/defs/clientRepresentation.js';
import type ClientScopeRepresentation from '@keycloak/keycloak-admin-client/lib/defs/clientScopeRepresentation.js';
import type IdentityProviderRepresentation from '@keycloak/keycloak-admin-client/lib/defs/identityProviderRepresentation.js';
import type ProtocolMapperRepresentation from '@keycloak/keycloak-admin-client/lib/defs/protocolMapperRepresentation.js';
import type RealmRepresentation from '@keycloak/keycloak-admin-client/lib/defs/realmRepresentation.js';
import type { ResolvedRealm } from '../realm-types.ts';

export type AgentClient = ResolvedRealm['clients'][number];
export type PublicClient = ResolvedRealm['publicClients'][number];
export type ClientScope = ResolvedRealm['scopes'][number];

/** Keycloak's own scope with the claims `sub` and `auth_time`: every token needs it. */
const basicScope = 'basic';

/** Realm settings in Keycloak's own words. */
export function realmSettings(realm: ResolvedRealm): RealmRepresentation {
  return {
    realm: realm.name,
    displayName: realm.displayName ?? realm.name,
    enabled: true,
    sslRequired: 'all',
    registrationAllowed: false,
    resetPasswordAllowed: false,
    editUsernameAllowed: false,
    rememberMe: false,
    verifyEmail: true,
    accessTokenLifespan: realm.accessTokenSeconds,
    accessTokenLifespanForImplicitFlow: realm.accessTokenSeconds,
    ssoSessionIdleTimeout: realm.sessionIdleSeconds,
    ssoSessionMaxLifespan: realm.sessionMaxSeconds,
    revokeRefreshToken: true,
    refreshTokenMaxReuse: 0,
    accessCodeLifespan: 60,
    accessCodeLifespanLogin: 900,
    oauth2DeviceCodeLifespan: 600,
    oauth2DevicePollingInterval: 5,
    defaultSignatureAlgorithm: 'RS256',
    passwordPolicy: 'length(12) and notUsername and notEmail',
    bruteForceProtected: true,
    permanentLockout: false,
    failureFactor: realm.bruteForce.failures,
    waitIncrementSeconds: realm.bruteForce.waitSeconds,
    maxFailureWaitSeconds: realm.bruteForce.longestWaitSeconds,
    eventsEnabled: true,
    adminEventsEnabled: true,
  };
}

const noFlows = {
  protocol: 'openid-connect',
  enabled: true,
  bearerOnly: false,
  standardFlowEnabled: false,
  implicitFlowEnabled: false,
  directAccessGrantsEnabled: false,
  serviceAccountsEnabled: false,
  // A token has the roles of the client's scopes only, whatever else its subject may do.
  fullScopeAllowed: false,
} satisfies ClientRepresentation;

/** By what a client shows that it is who it says: its secret, or the subject of the tokens of its pod. */
export type ClientCredential = { readonly secret: string } | { readonly subject: string };

/** Name of the identity provider whose tokens pods show. */
export const clusterProvider = 'kubernetes';

/** The cluster as an issuer of tokens by which clients sign in; nobody can log in through it. */
export const clusterIssuer = (issuer: string): IdentityProviderRepresentation => ({
  alias: clusterProvider,
  providerId: 'kubernetes',
  enabled: true,
  config: { issuer },
});

/** Source: https://www.keycloak.org/docs/latest/server_admin/#_identity_broker_kubernetes */
const authentication = (credential: ClientCredential) =>
  'secret' in credential
    ? { type: { clientAuthenticatorType: 'client-secret', secret: credential.secret }, attributes: {} }
    : {
        type: { clientAuthenticatorType: 'federated-jwt' },
        attributes: { 'jwt.credential.issuer': clusterProvider, 'jwt.credential.sub': credential.subject },
      };

/** Only the client-credentials flow: a service has no browser and no user's password. */
export function agentClient(client: AgentClient, credential: ClientCredential): ClientRepresentation {
  const { type, attributes } = authentication(credential);
  const lifespan = client.accessTokenSeconds;
  return {
    ...noFlows,
    clientId: client.clientId,
    description:
      client.description ?? `Agent of ${client.tenant === undefined ? 'no tenant' : `tenant ${client.tenant}`}`,
    publicClient: false,
    serviceAccountsEnabled: true,
    ...type,
    attributes: { ...attributes, ...(lifespan !== undefined && { 'access.token.lifespan': String(lifespan) }) },
  };
}

/** Authorization code with PKCE, and the device grant where it is declared; no secret, no password of a person. */
export function publicClient(client: PublicClient, logoutUrl: string | undefined): ClientRepresentation {
  return {
    ...noFlows,
    clientId: client.clientId,
    description: client.description ?? 'People sign in here',
    publicClient: true,
    standardFlowEnabled: true,
    redirectUris: [...client.redirectUris].sort(),
    webOrigins: webOrigins(client.redirectUris),
    attributes: {
      'pkce.code.challenge.method': 'S256',
      'oauth2.device.authorization.grant.enabled': String(client.deviceGrant),
      ...(client.logoutNotice && logoutUrl !== undefined && logoutNotice(logoutUrl)),
    },
  };
}

/** Pages of which origins may ask for tokens: those to which a browser returns. A command has no page. */
function webOrigins(redirectUris: readonly string[]): string[] {
  const pages = redirectUris.filter((uri) => uri.startsWith('https:'));
  return [...new Set(pages.map((uri) => new URL(uri).origin))].sort();
}

const logoutNotice = (url: string) => ({
  'backchannel.logout.url': url,
  'backchannel.logout.session.required': 'true',
  'backchannel.logout.revoke.offline.tokens': 'true',
});

/** A name that tokens may carry as their audience; it can't ask for a token itself. */
export function resourceServer(clientId: string): ClientRepresentation {
  return {
    ...noFlows,
    clientId,
    description: 'Accepts tokens, never asks for one',
    publicClient: false,
    bearerOnly: true,
    clientAuthenticatorType: 'client-secret',
  };
}

/** Names of the client scopes that the tokens of a service account always have; Keycloak itself insists on the second. */
export const agentScopes = ({ scopes }: AgentClient): string[] => [basicScope, 'service_account', ...scopes].sort();

/** Names of the client scopes that the tokens of people always have. */
export const publicScopes = ({ scopes }: PublicClient): string[] => [basicScope, ...scopes].sort();

/** A client scope without what has an address of its own: mappers and roles. */
export function clientScope(scope: ClientScope): ClientScopeRepresentation {
  return {
    name: scope.name,
    description: scope.description,
    protocol: 'openid-connect',
    attributes: { 'include.in.token.scope': 'false', 'display.on.consent.screen': 'false' },
  };
}

/** Mappers that put a scope's claims and audiences into access tokens. */
export function mappers(scope: ClientScope): ProtocolMapperRepresentation[] {
  const claims = {
    tenant: attribute('tenant', 'tenant', false),
    teams: attribute('teams', 'team', true),
    preferred_username: attribute('preferred_username', 'username', false),
    roles,
  };
  return [...scope.claims.map((claim) => claims[claim]), ...scope.audiences.map(audienceMapper)];
}

const inAccessTokens = {
  'access.token.claim': 'true',
  'id.token.claim': 'false',
  'userinfo.token.claim': 'false',
  'introspection.token.claim': 'true',
};

/**
 * A claim from an attribute of the subject or of its groups: a team's own group first, then the tenant around it. No
 * subject can write `tenant` or `team` for itself, because the realm's user profile does not know them.
 */
function attribute(claim: string, from: string, many: boolean): ProtocolMapperRepresentation {
  return {
    name: claim,
    protocol: 'openid-connect',
    protocolMapper: 'oidc-usermodel-attribute-mapper',
    config: {
      'claim.name': claim,
      'user.attribute': from,
      'jsonType.label': 'String',
      multivalued: String(many),
      'aggregate.attrs': String(many),
      ...inAccessTokens,
    },
  };
}

const roles: ProtocolMapperRepresentation = {
  name: 'roles',
  protocol: 'openid-connect',
  protocolMapper: 'oidc-usermodel-realm-role-mapper',
  config: { 'claim.name': 'roles', 'jsonType.label': 'String', multivalued: 'true', ...inAccessTokens },
};

function audienceMapper(audience: string): ProtocolMapperRepresentation {
  const { 'userinfo.token.claim': _, ...claims } = inAccessTokens;
  return {
    name: `audience ${audience}`,
    protocol: 'openid-connect',
    protocolMapper: 'oidc-audience-mapper',
    config: { 'included.custom.audience': audience, ...claims },
  };
}
