import { objectOf, parseName, type Tuple, tenantObject, tenantOf, userOf } from './tuples.ts';

/** A user or service account, as the identity service keeps it. */
export interface Account {
  readonly tenant: string;
  /** `sub` of its tokens. */
  readonly userId: string;
  readonly kind: 'user' | 'service-account';
  readonly username: string;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  readonly suspended: boolean;
}

/** A session, as the orchestrator keeps it. */
export interface Session {
  readonly tenant: string;
  readonly sessionId: string;
  /** `sub` of the token that created it. */
  readonly owner: string;
  readonly teams: readonly string[];
}

/**
 * Relations whose truth is elsewhere, at the identity service or in the database of sessions: OpenFGA only repeats
 * them. All others (grants of tools and capsules, memories) are kept in OpenFGA itself.
 */
export const derivedRelations: Readonly<Record<string, readonly string[]>> = {
  tenant: ['member', 'admin', 'auditor'],
  team: ['tenant', 'member'],
  persona: ['tenant', 'team', 'account'],
  session: ['tenant', 'owner', 'team'],
};

/** Derived relations that an object has to one other only: a second one is a wrong one. */
const single = new Set(['team tenant', 'persona tenant', 'persona account', 'session tenant', 'session owner']);

/** Roles that are relations to the tenant. */
const relationOfRole: Readonly<Record<string, string>> = { 'tenant-admin': 'admin', auditor: 'auditor' };

/** Whether the truth about a tuple is elsewhere. */
export const isDerived = ({ object, relation }: Tuple): boolean =>
  derivedRelations[object.split(':')[0] ?? '']?.includes(relation) === true;

/** Whether an object can have the relation to one other only. */
export const isSingle = ({ object, relation }: Tuple): boolean => single.has(`${object.split(':')[0]} ${relation}`);

/** What follows from a team. */
export const teamFacts = (tenant: string, name: string): readonly Tuple[] => [
  { user: tenantObject(tenant), relation: 'tenant', object: objectOf('team', tenant, name) },
];

/** What follows from an account. One that is suspended has no relation left; a service account is a persona. */
export function accountFacts(account: Account): readonly Tuple[] {
  const { tenant, userId, roles, teams, suspended } = account;
  if (suspended) return [];
  const user = userOf({ tenant, subject: userId });
  const ofTenant = ['member', ...roles.flatMap((role) => relationOfRole[role] ?? [])];
  return [
    ...ofTenant.map((relation) => ({ user, relation, object: tenantObject(tenant) })),
    ...teams.map((team) => ({ user, relation: 'member', object: objectOf('team', tenant, team) })),
    ...personaFacts(account, user),
  ];
}

function personaFacts({ tenant, kind, username, teams }: Account, user: string): readonly Tuple[] {
  if (kind !== 'service-account') return [];
  const object = personaOf(tenant, username);
  return [
    { user: tenantObject(tenant), relation: 'tenant', object },
    { user, relation: 'account', object },
    ...teams.map((team) => ({ user: objectOf('team', tenant, team), relation: 'team', object })),
  ];
}

/** The persona of a service account. */
export const personaOf = (tenant: string, username: string): string => objectOf('persona', tenant, username);

/** What follows from a session. */
export function sessionFacts({ tenant, sessionId, owner, teams }: Session): readonly Tuple[] {
  const object = objectOf('session', tenant, sessionId);
  return [
    { user: tenantObject(tenant), relation: 'tenant', object },
    { user: userOf({ tenant, subject: owner }), relation: 'owner', object },
    ...teams.map((team) => ({ user: objectOf('team', tenant, team), relation: 'team', object })),
  ];
}

/**
 * Why a tuple must not stand, whatever the sources say; undefined when it may. A tuple that crosses tenants grants
 * nothing by the model, and is a fault or an attack all the same.
 */
export function faultOf(tuple: Tuple, tenants: ReadonlySet<string>): string | undefined {
  const object = parseName(tuple.object);
  if (object === undefined) return 'its object has no name of this platform';
  if (tenantOf(tuple.user) !== object.tenant) return 'it crosses tenants';
  return tenants.has(object.tenant) ? undefined : `there is no tenant ${object.tenant}`;
}
