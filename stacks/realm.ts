import type { Realm } from '@somagent/bootstrap/realm-types.ts';

/** Who accepts tokens of our agents. */
export const gatewayAudience = 'somagent-gateway';

/** What {@link platformRealm} is made from. */
export interface PlatformRealmOptions {
  readonly tenants: readonly string[];
  /** Adds a client whose tokens name a tenant but no audience of ours: the gateway must refuse them. */
  readonly foreignClient: boolean;
}

/** The platform's realm as code: one confidential client per tenant, whose tokens carry the tenant and live 5 minutes. */
export function platformRealm(options: PlatformRealmOptions): Realm {
  const agents = options.tenants.map((tenant) => client(`${tenant}-agent`, tenant, [gatewayAudience]));
  const foreign = options.foreignClient ? [client('foreign-agent', options.tenants[0] ?? 'foreign', [])] : [];
  return {
    name: 'somagent',
    displayName: 'SomaGent',
    accessTokenSeconds: 300,
    resourceServers: [gatewayAudience],
    clients: [...agents, ...foreign],
  };
}

function client(clientId: string, tenant: string, audiences: string[]): Realm['clients'][number] {
  return { clientId, tenant, audiences, accessTokenSeconds: 300, description: `Agents of tenant ${tenant}` };
}
