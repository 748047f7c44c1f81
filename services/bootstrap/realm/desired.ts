import type ClientRepresentation from '@keycloak/keycloak-admin-client/lib/defs/clientRepresentation.js';
import type ProtocolMapperRepresentation from '@keycloak/keycloak-admin-client/lib/defs/protocolMapperRepresentation.js';
import type RealmRepresentation from '@keycloak/keycloak-admin-client/lib/defs/realmRepresentation.js';
import type { ResolvedRealm } from '../realm-types.ts';

type ResolvedClient = ResolvedRealm['clients'][number];

/** Realm settings in Keycloak's own words. */
export function realmSettings(realm: ResolvedRealm): RealmRepresentation {
  return {
    realm: realm.name,
    displayName: realm.displayName ?? realm.name,
    enabled: true,
    sslRequired: 'all',
    registrationAllowed: false,
    resetPasswordAllowed: false,
    rememberMe: false,
    verifyEmail: true,
    accessTokenLifespan: realm.accessTokenSeconds,
    ssoSessionIdleTimeout: realm.sessionIdleSeconds,
    ssoSessionMaxLifespan: realm.sessionMaxSeconds,
    revokeRefreshToken: true,
    refreshTokenMaxReuse: 0,
    defaultSignatureAlgorithm: 'RS256',
    bruteForceProtected: true,
    permanentLockout: false,
    failureFactor: realm.bruteForce.failures,
    waitIncrementSeconds: realm.bruteForce.waitSeconds,
    maxFailureWaitSeconds: realm.bruteForce.longestWaitSeconds,
    eventsEnabled: true,
    adminEventsEnabled: true,
  };
}

/** Only the client-credentials flow: a service has no browser and no user's password. */
const serviceAccountFlows: ClientRepresentation = {
  protocol: 'openid-connect',
  enabled: true,
  publicClient: false,
  bearerOnly: false,
  standardFlowEnabled: false,
  implicitFlowEnabled: false,
  directAccessGrantsEnabled: false,
  serviceAccountsEnabled: true,
  fullScopeAllowed: false,
  clientAuthenticatorType: 'client-secret',
};

export function agentClient(client: ResolvedClient, secret: string): ClientRepresentation {
  const lifespan = client.accessTokenSeconds;
  return {
    ...serviceAccountFlows,
    clientId: client.clientId,
    description:
      client.description ?? `Agent of ${client.tenant === undefined ? 'no tenant' : `tenant ${client.tenant}`}`,
    secret,
    attributes: lifespan === undefined ? {} : { 'access.token.lifespan': String(lifespan) },
  };
}

/** A name that tokens may carry as their audience; it can't ask for a token itself. */
export function resourceServer(clientId: string): ClientRepresentation {
  return {
    ...serviceAccountFlows,
    clientId,
    description: 'Accepts tokens, never asks for one',
    bearerOnly: true,
    serviceAccountsEnabled: false,
  };
}

/** Mappers that put the tenant and the audiences into a client's access tokens. */
export function mappers(client: ResolvedClient): ProtocolMapperRepresentation[] {
  const tenant = client.tenant === undefined ? [] : [tenantMapper(client.tenant)];
  return [...tenant, ...client.audiences.map(audienceMapper)];
}

function tenantMapper(tenant: string): ProtocolMapperRepresentation {
  return {
    name: 'tenant',
    protocol: 'openid-connect',
    protocolMapper: 'oidc-hardcoded-claim-mapper',
    config: {
      'claim.name': 'tenant',
      'claim.value': tenant,
      'jsonType.label': 'String',
      'access.token.claim': 'true',
      'id.token.claim': 'false',
      'userinfo.token.claim': 'false',
      'introspection.token.claim': 'true',
    },
  };
}

function audienceMapper(audience: string): ProtocolMapperRepresentation {
  return {
    name: `audience ${audience}`,
    protocol: 'openid-connect',
    protocolMapper: 'oidc-audience-mapper',
    config: {
      'included.custom.audience': audience,
      'access.token.claim': 'true',
      'id.token.claim': 'false',
      'introspection.token.claim': 'true',
    },
  };
}

/** True when every field of the wish has the same value in what is stored: other fields are not ours. */
export function isCovered(wish: unknown, stored: unknown): boolean {
  if (Array.isArray(wish)) {
    return (
      Array.isArray(stored) && wish.length === stored.length && wish.every((item, at) => isCovered(item, stored[at]))
    );
  }
  if (typeof wish === 'object' && wish !== null) {
    if (typeof stored !== 'object' || stored === null) return Object.keys(wish).length === 0;
    return Object.entries(wish).every(([key, value]) => isCovered(value, (stored as Record<string, unknown>)[key]));
  }
  return wish === stored;
}
