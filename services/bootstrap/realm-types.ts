import { z } from 'zod';

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be a-z, 0-9 and -');

/** Who somebody is: the tenant and teams of which it is a member, and the roles it has been given. */
const membership = {
  /** The tenant that every token names, in the claim `tenant`. Absent: none, as for operators of the platform. */
  tenant: name.optional(),
  /** Teams of that tenant: the claim `teams`. */
  teams: z.array(name).default([]),
  /** Realm roles: the claim `roles`. */
  roles: z.array(z.string().min(1)).default([]),
};

/** A client that acts as itself (OAuth 2.0 client credentials, RFC 6749 §4.4). */
const realmClient = z.strictObject({
  /** Its secret is the file CLIENTS_DIR/<clientId>/password, unless it is a workload. */
  clientId: name,
  /**
   * A pod of the region that signs in by the token of its ServiceAccount (RFC 7523) and has no secret; its subject is
   * WORKLOAD_SUBJECTS[clientId].
   */
  workload: z
    .strictObject({ plane: z.enum(['system', 'data', 'identity', 'runtime', 'services']), serviceAccount: name })
    .optional(),
  description: z.string().optional(),
  ...membership,
  /** Client scopes of the realm: which claims and audiences its tokens carry. */
  scopes: z.array(z.string().min(1)),
  /** Life of its access tokens, in seconds. Default: the realm's. */
  accessTokenSeconds: z.number().int().min(30).optional(),
  /** Rights on the realm itself: roles of Keycloak's client `realm-management`. */
  managementRoles: z.array(z.string().min(1)).default([]),
});

/** A client without a secret in which people sign in: authorization code with PKCE by S256, always. */
const publicClient = z.strictObject({
  clientId: name,
  description: z.string().optional(),
  scopes: z.array(z.string().min(1)),
  /** Where codes may be sent. On a loopback address every port is good (RFC 8252 §7.3). */
  redirectUris: z.array(z.url()).min(1),
  /** Whether a device without a browser may sign in too (RFC 8628). */
  deviceGrant: z.boolean().default(false),
  /** Whether the listener of logouts (LOGOUT_URL) is told when a session of this client ends. */
  logoutNotice: z.boolean().default(true),
});

/** What tokens say: a set of claims and audiences that clients are given together. */
const clientScope = z.strictObject({
  name,
  description: z.string(),
  /** Claims of access tokens. */
  claims: z.array(z.enum(['tenant', 'teams', 'roles', 'preferred_username'])).default([]),
  /** Values of the claim `aud`. */
  audiences: z.array(z.string().min(1)).default([]),
  /** Realm roles that may appear in tokens at all; no other role of the person does. */
  roles: z.array(z.string().min(1)).default([]),
});

/** A tenant is a group; its teams are the groups in it. */
const tenant = z.strictObject({ name, teams: z.array(name).default([]) });

/** A person. The first password is the file USERS_DIR/<username>/password; afterwards it is the person's own matter. */
const person = z.strictObject({
  username: name,
  firstName: z.string().min(1),
  lastName: z.string().min(1),
  email: z.email(),
  ...membership,
});

const realmFields = z.strictObject({
  name: z.string().regex(/^[a-z0-9-]+$/, 'must be a-z, 0-9 and -'),
  displayName: z.string().optional(),
  /** Life of access tokens, in seconds. */
  accessTokenSeconds: z.number().int().min(30).default(300),
  /** Idle and longest life of a person's session, in seconds. */
  sessionIdleSeconds: z.number().int().min(60).default(1800),
  sessionMaxSeconds: z.number().int().min(60).default(36_000),
  bruteForce: z
    .strictObject({
      /** Failed logins before the wait begins. */
      failures: z.number().int().min(1).default(10),
      /** The wait grows by this with every further failure, up to the longest, both in seconds. */
      waitSeconds: z.number().int().min(1).default(60),
      longestWaitSeconds: z.number().int().min(1).default(900),
    })
    .prefault({}),
  signingKeys: z
    .strictObject({
      /** Age at which a signing key is replaced, in days. */
      days: z.number().positive().default(30),
      /** How long a new key is public before it signs, in seconds: longer than anybody keeps the old list of keys. */
      publishSeconds: z.number().int().min(1).default(900),
    })
    .prefault({}),
  /** Services that accept tokens and never ask for one: bearer-only names for `aud`. */
  resourceServers: z.array(name).default([]),
  roles: z.array(z.strictObject({ name, description: z.string() })).default([]),
  scopes: z.array(clientScope).default([]),
  tenants: z.array(tenant).default([]),
  clients: z.array(realmClient),
  publicClients: z.array(publicClient).default([]),
  people: z.array(person).default([]),
});

/**
 * A Keycloak realm as data. What is absent here and managed by us is repaired; the rest of the realm is left alone.
 * Names that are used must be declared, and are declared once.
 */
export const realmSchema = realmFields.superRefine((realm, context) => {
  for (const message of problemsOf(realm)) context.addIssue({ code: 'custom', message });
});

/** A realm as an author writes it: fields with a default may be left out. */
export type Realm = z.input<typeof realmSchema>;
export type RealmClient = z.input<typeof realmClient>;
export type RealmPublicClient = z.input<typeof publicClient>;
export type RealmPerson = z.input<typeof person>;
/** A realm with every default resolved. */
export type ResolvedRealm = z.output<typeof realmSchema>;

interface Member {
  readonly tenant?: string | undefined;
  readonly teams: readonly string[];
  readonly roles: readonly string[];
}

function problemsOf(realm: z.output<typeof realmFields>): string[] {
  const clientIds = [...realm.resourceServers, ...[...realm.clients, ...realm.publicClients].map((c) => c.clientId)];
  const members = [
    ...realm.clients.map((client): [string, Member] => [`client ${client.clientId}`, client]),
    ...realm.people.map((one): [string, Member] => [`person ${one.username}`, one]),
  ];
  return [
    ...twice('client', clientIds),
    ...twice('tenant', realm.tenants.map(nameOf)),
    ...twice('role', realm.roles.map(nameOf)),
    ...twice('scope', realm.scopes.map(nameOf)),
    ...twice(
      'person',
      realm.people.map(({ username }) => username),
    ),
    ...members.flatMap(([who, member]) => memberProblems(realm, who, member)),
    ...realm.scopes.flatMap(({ name: scope, roles }) => undeclared(realm.roles, roles, `scope ${scope}`, 'role')),
    ...[...realm.clients, ...realm.publicClients].flatMap(({ clientId, scopes }) =>
      undeclared(realm.scopes, scopes, `client ${clientId}`, 'scope'),
    ),
  ];
}

const nameOf = ({ name: own }: { readonly name: string }): string => own;

function twice(kind: string, names: readonly string[]): string[] {
  const repeated = names.filter((own, at) => names.indexOf(own) !== at);
  return [...new Set(repeated)].map((own) => `${kind} ${own} is declared twice: keep one`);
}

function undeclared(
  declared: readonly { readonly name: string }[],
  used: readonly string[],
  who: string,
  kind: string,
): string[] {
  const known = declared.map(nameOf);
  return used
    .filter((own) => !known.includes(own))
    .map((own) => `${who}: ${kind} ${own} is not declared; declared are ${known.join(', ') || 'none'}`);
}

function memberProblems(realm: z.output<typeof realmFields>, who: string, member: Member): string[] {
  const roles = undeclared(realm.roles, member.roles, who, 'role');
  if (member.tenant === undefined) {
    return member.teams.length === 0 ? roles : [...roles, `${who}: teams without a tenant; name the tenant`];
  }
  const own = realm.tenants.find(({ name: tenantName }) => tenantName === member.tenant);
  if (own === undefined) return [...roles, ...undeclared(realm.tenants, [member.tenant], who, 'tenant')];
  const teams = own.teams.map((team) => ({ name: team }));
  return [...roles, ...undeclared(teams, member.teams, who, `team of ${own.name}`)];
}
