import type { Realm, RealmClient } from '@somagent/bootstrap/realm-types.ts';

/** Who accepts tokens of our agents. */
export const gatewayAudience = 'somagent-gateway';

/** What {@link platformRealm} is made from. */
export interface PlatformRealmOptions {
  readonly tenants: readonly string[];
  /** Adds clients whose tokens the gateway must refuse, for tests: a foreign audience, no tenant, a very short life. */
  readonly probeClients: boolean;
}

/** The platform's realm as code: one confidential client per tenant, whose tokens carry the tenant and live 5 minutes. */
export function platformRealm({ tenants, probeClients }: PlatformRealmOptions): Realm {
  return {
    name: 'somagent',
    displayName: 'SomaGent',
    accessTokenSeconds: 300,
    resourceServers: [gatewayAudience],
    clients: [...tenants.map(agent), ...(probeClients ? probes(tenants[0] ?? 'probe') : [])],
  };
}

function agent(tenant: string): RealmClient {
  const audiences = [gatewayAudience];
  const description = `Agents of tenant ${tenant}`;
  return { clientId: `${tenant}-agent`, tenant, audiences, accessTokenSeconds: 300, description };
}

function probes(tenant: string): RealmClient[] {
  const audiences = [gatewayAudience];
  return [
    { clientId: 'foreign-agent', tenant, audiences: [], description: 'Tokens for another audience' },
    { clientId: 'untenanted-agent', audiences, description: 'Tokens without a tenant' },
    { clientId: 'brief-agent', tenant, audiences, accessTokenSeconds: 30, description: 'Tokens that soon expire' },
  ];
}
