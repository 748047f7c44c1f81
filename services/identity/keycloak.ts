import KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import type GroupRepresentation from '@keycloak/keycloak-admin-client/lib/defs/groupRepresentation.js';
import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { Problem } from '@somagent/governance';
import { reasonOf } from '@somagent/kit';
import type { AccountKind } from './database.ts';
import { problems } from './problems.ts';

/** How the service signs in at Keycloak: as a client of its own with few rights on the realm. */
export interface KeycloakOptions {
  readonly url: string;
  readonly realm: string;
  /**
   * By what the client signs in: parameters of its token request. Called for each sign-in, so that a new token of the
   * pod needs no restart.
   */
  readonly credentials: () => Readonly<Record<string, string>>;
  /** Client scopes that a service account's tokens have: the claims `tenant`, `teams`, `roles` and the audience. */
  readonly clientScopes: readonly string[];
}

/** Roles that an account of a tenant can be given. That of an operator is not among them: the realm's code gives it. */
export const tenantRoles = ['agent', 'member', 'tenant-admin', 'auditor'] as const;

/** What Keycloak must hold about an account. */
export interface WishedAccount {
  readonly id: string;
  readonly kind: AccountKind;
  readonly tenant: string;
  /** Of a service account: its client's id. */
  readonly username: string;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  readonly enabled: boolean;
}

/** An account as Keycloak has it. */
export interface StoredAccount extends WishedAccount {
  readonly email: string | null;
  /** Whether it is in the group of its tenant. */
  readonly grouped: boolean;
}

/** An account that Keycloak knows by a name. */
export interface FoundAccount {
  readonly id: string;
  /** Nobody can sign in with it and it belongs to nobody: what an interrupted creation leaves. */
  readonly inert: boolean;
}

const serviceAccountPrefix = 'service-account-';
const pageSize = 200;
/** Access tokens of the client live for minutes: a new one is asked for well before. */
const signInMs = 45_000;
/** Milliseconds. */
const requestTimeout = 10_000;

/** The part of Keycloak that this service keeps: accounts, groups of tenants and teams, roles of accounts. */
export class Keycloak {
  readonly #options: KeycloakOptions;
  readonly #admin: KeycloakAdminClient;
  #signedInAt = Number.NEGATIVE_INFINITY;

  constructor(options: KeycloakOptions) {
    this.#options = options;
    this.#admin = new KeycloakAdminClient({ baseUrl: options.url, realmName: options.realm, timeout: requestTimeout });
  }

  /** The account of that name, whoever it belongs to. */
  find(kind: AccountKind, username: string): Promise<FoundAccount | undefined> {
    return this.#call(async (admin) => {
      const service = kind === 'service-account';
      const name = service ? `${serviceAccountPrefix}${username}` : username;
      const [user] = await admin.users.find({ username: name, exact: true });
      if (user?.id === undefined) return undefined;
      const groups = await admin.users.listGroups({ id: user.id });
      const owner = service ? (await admin.clients.find({ clientId: username }))[0] : user;
      return { id: user.id, inert: owner?.enabled === false && groups.length === 0 };
    });
  }

  /** Creates a user that can't sign in yet; {@link apply} makes it able to. @returns its id */
  createUser(user: { readonly username: string; readonly email: string | null }): Promise<string> {
    const { username, email } = user;
    return this.#call(async (admin) => {
      const { id } = await admin.users.create({ username, enabled: false, ...(email !== null && { email }) });
      return id;
    });
  }

  /** Sets a password that the person has to replace at the first sign-in. */
  setTemporaryPassword(id: string, value: string): Promise<void> {
    return this.#call((admin) =>
      admin.users.resetPassword({ id, credential: { type: 'password', value, temporary: true } }),
    );
  }

  /** Creates a client that acts as itself, unable to yet. @returns the id of its user: `sub` of its tokens */
  createServiceAccount(clientId: string, description: string): Promise<string> {
    return this.#call(async (admin) => {
      const [stored] = await admin.clients.find({ clientId });
      const id = stored?.id ?? (await admin.clients.create(serviceClient(clientId, description, this.#options))).id;
      const user = await admin.clients.getServiceAccountUser({ id });
      return user.id ?? missing(`the user of client ${clientId}`);
    });
  }

  /** Gives the client a new secret; the old one is void at once. @returns the secret, to be shown once */
  newClientSecret(clientId: string): Promise<string> {
    return this.#call(async (admin) => {
      const { value } = await admin.clients.generateNewClientSecret({ id: await clientUuid(admin, clientId) });
      return value ?? missing(`a secret of client ${clientId}`);
    });
  }

  /** Removes a user, or a client with its user. Repeated, it changes nothing. */
  remove(account: Pick<WishedAccount, 'id' | 'kind' | 'username'>): Promise<void> {
    return this.#call(async (admin) => {
      if (account.kind === 'user') return absentIsFine(admin.users.del({ id: account.id }));
      const [client] = await admin.clients.find({ clientId: account.username });
      if (client?.id !== undefined) await admin.clients.del({ id: client.id });
    });
  }

  /** Ends every login session of the user; Keycloak then gives no new token for them. */
  logout(id: string): Promise<void> {
    return this.#call((admin) => absentIsFine(admin.users.logout({ id })));
  }

  /** Tenants and their teams, as groups. */
  tenants(): Promise<ReadonlyMap<string, readonly string[]>> {
    return this.#call(async (admin) => {
      const found = new Map<string, readonly string[]>();
      for (const { id, name } of await tenantGroups(admin)) {
        const teams = await subGroups(admin, id);
        found.set(name, teams.map((team) => team.name).sort());
      }
      return found;
    });
  }

  /** Ensures the group of a tenant and those of its teams. @returns what was not there */
  ensureGroups(tenant: string, teams: readonly string[]): Promise<string[]> {
    return this.#call(async (admin) => {
      const made: string[] = [];
      let parent = (await tenantGroups(admin)).find(({ name }) => name === tenant)?.id;
      if (parent === undefined) {
        parent = (await admin.groups.create({ name: tenant, attributes: { tenant: [tenant] } })).id;
        made.push(`/${tenant}`);
      }
      const known = new Set((await subGroups(admin, parent)).map(({ name }) => name));
      for (const team of teams.filter((name) => !known.has(name))) {
        await admin.groups.createChildGroup({ id: parent }, { name: team, attributes: { team: [team] } });
        made.push(`/${tenant}/${team}`);
      }
      return made;
    });
  }

  /** Removes the group of a team. Repeated, it changes nothing. */
  removeTeam(tenant: string, team: string): Promise<void> {
    return this.#call(async (admin) => {
      const parent = (await tenantGroups(admin)).find(({ name }) => name === tenant);
      if (parent === undefined) return;
      const group = (await subGroups(admin, parent.id)).find(({ name }) => name === team);
      if (group !== undefined) await admin.groups.del({ id: group.id });
    });
  }

  /** Every account of every tenant. */
  accounts(): Promise<StoredAccount[]> {
    return this.#call(async (admin) => {
      const accounts: StoredAccount[] = [];
      for (const { id, name } of await tenantGroups(admin)) {
        for (const user of await members(admin, id)) accounts.push(await storedAccount(admin, name, user));
      }
      return accounts;
    });
  }

  /** Whether there is an account of that id. */
  exists(id: string): Promise<boolean> {
    return this.#call(async (admin) => (await admin.users.findOne({ id }))?.id === id);
  }

  /** Makes Keycloak hold what is wished. @returns what was different: `groups`, `teams`, `roles`, `enabled`; `missing` if it is */
  apply(wish: WishedAccount): Promise<string[]> {
    return this.#call(async (admin) => {
      const user = await admin.users.findOne({ id: wish.id });
      if (user?.id === undefined) return ['missing'];
      const stored = await storedAccount(admin, wish.tenant, user);
      const repaired = differencesOf(wish, stored);
      if (repaired.includes('groups') || repaired.includes('teams'))
        await applyGroups(admin, wish, await this.#groupIds(admin, wish));
      if (repaired.includes('roles')) await applyRoles(admin, wish, stored.roles);
      // Last, so that nobody signs in with less than all of it; and first in the other direction.
      if (repaired.includes('enabled')) await applyEnabled(admin, wish);
      return repaired;
    });
  }

  /** Internal ids of the groups that the account shall be in. */
  async #groupIds(admin: KeycloakAdminClient, { tenant, teams }: WishedAccount): Promise<ReadonlyMap<string, string>> {
    const parent = (await tenantGroups(admin)).find(({ name }) => name === tenant);
    if (parent === undefined) throw new Error(`Keycloak has no group /${tenant}`);
    const ids = new Map([[`/${tenant}`, parent.id]]);
    for (const { id, name } of await subGroups(admin, parent.id)) {
      if (teams.includes(name)) ids.set(`/${tenant}/${name}`, id);
    }
    return ids;
  }

  /** Signs in where that is due and translates failures. @throws Problem keycloak-away. */
  /** The admin client of Keycloak knows secrets only. */
  async #signIn(): Promise<string> {
    const { url, realm, credentials } = this.#options;
    const body = new URLSearchParams({ grant_type: 'client_credentials', ...credentials() });
    const signal = AbortSignal.timeout(requestTimeout);
    const response = await fetch(`${url}/realms/${realm}/protocol/openid-connect/token`, {
      method: 'POST',
      body,
      signal,
    });
    const answer = (await response.json()) as { readonly access_token?: string; readonly error_description?: string };
    if (answer.access_token !== undefined) return answer.access_token;
    throw new Error(`the sign-in is refused with ${response.status}: ${answer.error_description ?? 'no reason given'}`);
  }

  async #call<Result>(work: (admin: KeycloakAdminClient) => Promise<Result>): Promise<Result> {
    try {
      if (performance.now() - this.#signedInAt > signInMs) {
        this.#admin.setAccessToken(await this.#signIn());
        this.#signedInAt = performance.now();
      }
      return await work(this.#admin);
    } catch (error) {
      if (error instanceof Problem) throw error;
      // The token may be the reason: the next call signs in anew.
      this.#signedInAt = Number.NEGATIVE_INFINITY;
      throw new Problem(problems.keycloakAway, `Keycloak did not do it (${reasonOf(error)}): try again`, {
        'retry-after': '5',
      });
    }
  }
}

const clientUuid = async (admin: KeycloakAdminClient, clientId: string): Promise<string> => {
  const [client] = await admin.clients.find({ clientId });
  return client?.id ?? missing(`client ${clientId}`);
};

function missing(what: string): never {
  throw new Error(`Keycloak has not ${what}`);
}

async function absentIsFine(call: Promise<void>): Promise<void> {
  try {
    await call;
  } catch (error) {
    const response = typeof error === 'object' && error !== null && 'response' in error ? error.response : undefined;
    if (!(response instanceof Response) || response.status !== 404) throw error;
  }
}

/** Client credentials only; disabled until its account is in the database. */
const serviceClient = (clientId: string, description: string, { clientScopes }: KeycloakOptions) => ({
  clientId,
  description,
  protocol: 'openid-connect',
  enabled: false,
  publicClient: false,
  serviceAccountsEnabled: true,
  standardFlowEnabled: false,
  implicitFlowEnabled: false,
  directAccessGrantsEnabled: false,
  fullScopeAllowed: false,
  clientAuthenticatorType: 'client-secret',
  defaultClientScopes: ['basic', 'service_account', ...clientScopes],
  optionalClientScopes: [],
});

interface Group {
  readonly id: string;
  readonly name: string;
}

const named = (groups: readonly GroupRepresentation[]): Group[] =>
  groups.flatMap(({ id, name }) => (id === undefined || name === undefined ? [] : [{ id, name }]));

/** A tenant is a group that says so in its attribute. */
async function tenantGroups(admin: KeycloakAdminClient): Promise<Group[]> {
  const groups = await admin.groups.find({ briefRepresentation: false, max: 10_000 });
  return named(groups.filter(({ name, attributes }) => attributes?.tenant?.[0] === name));
}

const subGroups = async (admin: KeycloakAdminClient, parentId: string): Promise<Group[]> =>
  named(await admin.groups.listSubGroups({ parentId, briefRepresentation: false, max: 10_000 }));

async function members(admin: KeycloakAdminClient, id: string): Promise<UserRepresentation[]> {
  const all: UserRepresentation[] = [];
  for (;;) {
    const page = await admin.groups.listMembers({ id, first: all.length, max: pageSize });
    all.push(...page);
    if (page.length < pageSize) return all;
  }
}

async function storedAccount(
  admin: KeycloakAdminClient,
  tenant: string,
  user: UserRepresentation,
): Promise<StoredAccount> {
  const id = user.id ?? '';
  const name = user.username ?? '';
  const service = name.startsWith(serviceAccountPrefix);
  const username = service ? name.slice(serviceAccountPrefix.length) : name;
  const groups = await admin.users.listGroups({ id, max: 1000 });
  const roles = await admin.users.listRealmRoleMappings({ id });
  const client = service ? (await admin.clients.find({ clientId: username }))[0] : undefined;
  const prefix = `/${tenant}/`;
  return {
    id,
    kind: service ? 'service-account' : 'user',
    tenant,
    username,
    email: user.email ?? null,
    roles: sorted(roles.flatMap((role) => (isTenantRole(role.name) ? [role.name] : []))),
    teams: sorted(groups.flatMap(({ path = '' }) => (path.startsWith(prefix) ? [path.slice(prefix.length)] : []))),
    grouped: groups.some(({ path }) => path === `/${tenant}`),
    enabled: user.enabled === true && (!service || client?.enabled === true),
  };
}

const isTenantRole = (name: string | undefined): name is string =>
  name !== undefined && (tenantRoles as readonly string[]).includes(name);

const sorted = (names: readonly string[]): string[] => [...names].sort();

/** Names of the fields in which Keycloak is not as the account is wished. */
export function differencesOf(wish: WishedAccount, stored: StoredAccount): string[] {
  const differ = (left: readonly string[], right: readonly string[]) =>
    JSON.stringify(sorted(left)) !== JSON.stringify(sorted(right));
  return [
    ...(stored.grouped ? [] : ['groups']),
    ...(differ(wish.teams, stored.teams) ? ['teams'] : []),
    ...(differ(wish.roles, stored.roles) ? ['roles'] : []),
    ...(wish.enabled === stored.enabled ? [] : ['enabled']),
  ];
}

async function applyGroups(
  admin: KeycloakAdminClient,
  { id, tenant }: WishedAccount,
  wished: ReadonlyMap<string, string>,
): Promise<void> {
  const stored = await admin.users.listGroups({ id, max: 1000 });
  for (const group of stored) {
    const path = group.path ?? '';
    const ours = path === `/${tenant}` || path.startsWith(`/${tenant}/`);
    if (ours && !wished.has(path)) await admin.users.delFromGroup({ id, groupId: group.id ?? '' });
  }
  for (const [path, groupId] of wished) {
    if (!stored.some((group) => group.path === path)) await admin.users.addToGroup({ id, groupId });
  }
}

async function applyRoles(admin: KeycloakAdminClient, wish: WishedAccount, stored: readonly string[]): Promise<void> {
  const { id } = wish;
  const references = (roles: readonly { id?: string; name?: string }[], names: readonly string[]) =>
    roles.flatMap((role) =>
      role.id !== undefined && role.name !== undefined && names.includes(role.name)
        ? [{ id: role.id, name: role.name }]
        : [],
    );
  const surplus = stored.filter((name) => !wish.roles.includes(name));
  const lacking = wish.roles.filter((name) => !stored.includes(name));
  if (surplus.length > 0) {
    const roles = references(await admin.users.listRealmRoleMappings({ id }), surplus);
    await admin.users.delRealmRoleMappings({ id, roles });
  }
  if (lacking.length > 0) {
    const roles = references(await admin.users.listAvailableRealmRoleMappings({ id }), lacking);
    if (roles.length < lacking.length) missing(`all of the roles ${lacking.join(', ')}`);
    await admin.users.addRealmRoleMappings({ id, roles });
  }
}

async function applyEnabled(admin: KeycloakAdminClient, { id, kind, username, enabled }: WishedAccount): Promise<void> {
  if (kind === 'service-account') {
    await admin.clients.update({ id: await clientUuid(admin, username) }, { clientId: username, enabled });
  }
  await admin.users.update({ id }, { ...(await admin.users.findOne({ id })), enabled });
  if (!enabled && kind === 'user') await admin.users.logout({ id });
}
