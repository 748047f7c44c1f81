import type { Realm, RealmClient } from '@somagent/bootstrap/realm-types.ts';
import { dev } from './realms/dev.ts';
import type { RealmEnvironment } from './realms/environment.ts';
import { production } from './realms/production.ts';
import { staging } from './realms/staging.ts';

/** Who accepts tokens of our agents and people: every HTTP API of the platform. */
export const gatewayAudience = 'somagent-gateway';

const environments: Readonly<Record<string, RealmEnvironment>> = { dev, staging, production };

/** What {@link platformRealm} is made from besides the environment. */
export interface PlatformRealmOptions {
  readonly tenants: readonly string[];
  /** Adds clients for tests, most of whose tokens the gateway must refuse: a foreign audience, no tenant, a very short or a long life. */
  readonly probeClients: boolean;
}

/** Who may be what; what a role is allowed to do is said in policies/. */
const roles = [
  { name: 'agent', description: 'Works in sessions' },
  { name: 'member', description: 'Works in sessions and sees those of the team' },
  { name: 'tenant-admin', description: 'Administers a tenant: users, keys, training' },
  { name: 'auditor', description: 'Reads the audit log and the verdicts' },
  { name: 'operator', description: 'Operates the platform: tenants, kill switch' },
];

/** Claims that say who it is, and the audience that says for whom: apart, so that one can be had without the other. */
const whoScope = 'somagent';
const scopes = [
  {
    name: whoScope,
    description: 'Tenant, teams, roles and name',
    claims: ['tenant' as const, 'teams' as const, 'roles' as const, 'preferred_username' as const],
    roles: roles.map(({ name }) => name),
  },
  { name: gatewayAudience, description: 'Tokens for the APIs of the platform', audiences: [gatewayAudience] },
];
const allScopes = scopes.map(({ name }) => name);

/**
 * The platform's realm as code.
 * @param environment name of the stack: one of stacks/realms/
 * @throws when there is no such environment
 */
export function platformRealm(environment: string, { tenants, probeClients }: PlatformRealmOptions): Realm {
  const own = environments[environment];
  if (own === undefined) {
    const known = Object.keys(environments).join(', ');
    throw new Error(
      `there is no realm for stack '${environment}'; known are ${known}: add stacks/realms/${environment}.ts`,
    );
  }
  const { consoleOrigin, teams, personas, people, ...times } = own;
  const agents = tenants.map((tenant) => agentOf(tenant, teams[0]));
  const accounts = tenants.flatMap((tenant) => personas.map(({ persona, team }) => personaOf(tenant, persona, team)));
  return {
    name: 'somagent',
    displayName: 'SomaGent',
    ...times,
    resourceServers: [gatewayAudience],
    roles,
    scopes,
    tenants: tenants.map((name) => ({ name, teams: [...teams] })),
    clients: [...agents, ...accounts, identityService, ...(probeClients ? probes(tenants[0] ?? 'probe') : [])],
    publicClients: [
      {
        clientId: 'somagent-cli',
        description: 'The command soma',
        scopes: allScopes,
        redirectUris: ['http://127.0.0.1/callback'],
        deviceGrant: true,
      },
      {
        clientId: 'somagent-console',
        description: 'The console in a browser',
        scopes: allScopes,
        redirectUris: [`${consoleOrigin}/callback`],
      },
    ],
    people: [...people(tenants)],
  };
}

function agentOf(tenant: string, team: string): RealmClient {
  const description = `Agents of tenant ${tenant}`;
  return { clientId: `${tenant}-agent`, description, tenant, teams: [team], roles: ['agent'], scopes: allScopes };
}

function personaOf(tenant: string, persona: string, team: string): RealmClient {
  const description = `Persona ${persona} of tenant ${tenant}`;
  return {
    clientId: `${tenant}-persona-${persona}`,
    description,
    tenant,
    teams: [team],
    roles: ['agent'],
    scopes: allScopes,
  };
}

/** Users, groups and their sessions; clients, because the service account of a tenant is one. Nothing of the realm. */
const identityService: RealmClient = {
  clientId: 'somagent-identity',
  workload: { plane: 'services', serviceAccount: 'identity' },
  description: 'The identity service, on the realm itself',
  scopes: [],
  managementRoles: ['manage-clients', 'manage-users'],
};

function probes(tenant: string): RealmClient[] {
  const agent = { tenant, roles: ['agent'], scopes: allScopes };
  return [
    { ...agent, clientId: 'foreign-agent', scopes: [whoScope], description: 'Tokens for another audience' },
    { clientId: 'untenanted-agent', roles: ['agent'], scopes: allScopes, description: 'Tokens without a tenant' },
    { ...agent, clientId: 'brief-agent', accessTokenSeconds: 30, description: 'Tokens that soon expire' },
    { ...agent, clientId: 'lasting-agent', accessTokenSeconds: 900, description: 'Tokens that outlive an outage' },
  ];
}
