import type KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import type ClientRepresentation from '@keycloak/keycloak-admin-client/lib/defs/clientRepresentation.js';
import type ProtocolMapperRepresentation from '@keycloak/keycloak-admin-client/lib/defs/protocolMapperRepresentation.js';
import type RoleRepresentation from '@keycloak/keycloak-admin-client/lib/defs/roleRepresentation.js';
import { Failure } from '../failure.ts';
import type { ResolvedRealm } from '../realm-types.ts';
import type { RealmChanges } from './changes.ts';
import {
  agentClient,
  agentScopes,
  type ClientCredential,
  type ClientScope,
  clientScope,
  clusterIssuer,
  clusterProvider,
  mappers,
  publicClient,
  publicScopes,
  realmSettings,
  resourceServer,
} from './desired.ts';
import { differences } from './difference.ts';
import { applyPeople, applyServiceAccounts, applyTenants } from './members.ts';

/** What the realm is made from besides its declaration. */
export interface RealmInputs {
  /** Secret of each client that has one, by its id. */
  readonly secrets: ReadonlyMap<string, string>;
  /** Who issues the tokens of pods, and the subject of each client that is one, by its id. @default no client is one */
  readonly workloads?: Workloads | undefined;
  /** First password of each person, by the user name. */
  readonly passwords: ReadonlyMap<string, string>;
  /** Where Keycloak tells that a session has ended (OpenID Connect Back-Channel Logout 1.0); undefined: nowhere. */
  readonly logoutUrl?: string | undefined;
}

/** How pods sign in. */
export interface Workloads {
  readonly issuer: string;
  readonly subjects: Readonly<Record<string, string>>;
}

/** Everything that one run works with. */
export interface RealmRun {
  readonly admin: KeycloakAdminClient;
  readonly realm: ResolvedRealm;
  readonly inputs: RealmInputs;
  readonly changes: RealmChanges;
}

/** A client as Keycloak has stored it. */
export interface StoredClient {
  readonly clientId: string;
  readonly id: string;
}

/** Brings the realm to what is declared, or lists what is not so. What nobody declares here is left alone. */
export async function applyRealm(run: RealmRun): Promise<void> {
  const { realm, inputs } = run;
  if (!(await ensureRealm(run))) return;
  for (const role of realm.roles) await ensureRole(run, role);
  for (const scope of realm.scopes) await ensureScope(run, scope);
  if (inputs.workloads !== undefined) await ensureClusterIssuer(run, inputs.workloads.issuer);
  for (const clientId of realm.resourceServers) await ensureClient(run, resourceServer(clientId));
  const tokens: (StoredClient & { readonly scopes: readonly string[] })[] = [];
  const agents: StoredClient[] = [];
  for (const client of realm.publicClients) {
    const stored = await ensureClient(run, publicClient(client, inputs.logoutUrl));
    if (stored !== undefined) tokens.push({ ...stored, scopes: publicScopes(client) });
  }
  for (const client of realm.clients) {
    const stored = await ensureClient(run, agentClient(client, credentialOf(inputs, client)));
    if (stored === undefined) continue;
    tokens.push({ ...stored, scopes: agentScopes(client) });
    agents.push(stored);
  }
  // Who somebody is comes before what tokens say of it: no token in between lacks its tenant.
  const groups = await applyTenants(run);
  await applyServiceAccounts(run, agents, groups);
  await applyPeople(run, groups);
  for (const client of tokens) await ensureTokens(run, client, client.scopes);
}

/** A secret value that was mounted. @throws Failure that says which is missing */
export function given(values: ReadonlyMap<string, string>, kind: 'client' | 'user', name: string): string {
  const value = values.get(name);
  if (value === undefined) throw new Failure(`${kind} ${name}: no secret`, `mount keycloak-${kind}-${name}`);
  return value;
}

/** @throws Failure that says what is missing. */
function credentialOf(
  { secrets, workloads }: RealmInputs,
  { clientId, workload }: ResolvedRealm['clients'][number],
): ClientCredential {
  if (workload === undefined) return { secret: given(secrets, 'client', clientId) };
  const subject = workloads?.subjects[clientId];
  if (subject !== undefined) return { subject };
  throw new Failure(`client ${clientId}: no subject of its pod`, `name it in WORKLOAD_SUBJECTS: {"${clientId}": "…"}`);
}

/** Whoever could change this issuer could sign in as any pod: it is compared like everything else. */
async function ensureClusterIssuer({ admin, realm, changes }: RealmRun, issuer: string): Promise<void> {
  const wish = clusterIssuer(issuer);
  const own = { kind: 'identity provider', name: clusterProvider };
  const stored = (await admin.identityProviders.find({ realm: realm.name })).find(({ alias }) => alias === wish.alias);
  if (stored === undefined) {
    await changes.make({ ...own, action: 'create', fields: [] }, () =>
      admin.identityProviders.create({ realm: realm.name, ...wish }),
    );
    return;
  }
  const fields = differences(wish, stored);
  if (fields.length === 0) return;
  const config = { ...stored.config, ...wish.config };
  await changes.make({ ...own, action: 'update', fields }, () =>
    admin.identityProviders.update({ realm: realm.name, alias: clusterProvider }, { ...stored, ...wish, config }),
  );
}

/** @returns whether the realm is there to be looked into */
async function ensureRealm({ admin, realm, changes }: RealmRun): Promise<boolean> {
  const wish = realmSettings(realm);
  const stored = await admin.realms.findOne({ realm: realm.name });
  const own = { kind: 'realm', name: realm.name };
  if (stored === undefined || stored === null) {
    await changes.make({ ...own, action: 'create', fields: [] }, () => admin.realms.create(wish));
    return changes.mode === 'apply';
  }
  const fields = differences(wish, stored);
  if (fields.length > 0) {
    await changes.make({ ...own, action: 'update', fields }, () => admin.realms.update({ realm: realm.name }, wish));
  }
  return true;
}

async function ensureRole(
  { admin, realm, changes }: RealmRun,
  wish: { name: string; description: string },
): Promise<void> {
  const stored = await admin.roles.findOneByName({ realm: realm.name, name: wish.name });
  const own = { kind: 'role', name: wish.name };
  if (stored === undefined || stored === null) {
    await changes.make({ ...own, action: 'create', fields: [] }, () =>
      admin.roles.create({ realm: realm.name, ...wish }),
    );
    return;
  }
  // A composite role would give whoever has it more than its name says.
  const fields = differences({ ...wish, composite: false }, stored);
  if (fields.length === 0) return;
  await changes.make({ ...own, action: 'update', fields }, async () => {
    const parts = await admin.roles.getCompositeRoles({ realm: realm.name, id: stored.id ?? '' });
    if (parts.length > 0) await admin.roles.delCompositeRoles({ realm: realm.name, id: stored.id ?? '' }, parts);
    await admin.roles.updateByName({ realm: realm.name, name: wish.name }, wish);
  });
}

async function ensureScope(run: RealmRun, scope: ClientScope): Promise<void> {
  const { admin, changes } = run;
  const realm = run.realm.name;
  const wish = clientScope(scope);
  const stored = (await admin.clientScopes.find({ realm })).find(({ name }) => name === scope.name);
  const own = { kind: 'client scope', name: scope.name };
  if (stored?.id === undefined) {
    const made = await changes.make({ ...own, action: 'create', fields: [] }, () =>
      admin.clientScopes.create({ realm, ...wish }),
    );
    if (made !== undefined) await ensureScopeContent(run, scope, made.id);
    return;
  }
  const { id } = stored;
  const fields = differences(wish, stored);
  if (fields.length > 0) {
    const attributes = { ...stored.attributes, ...wish.attributes };
    await changes.make({ ...own, action: 'update', fields }, () =>
      admin.clientScopes.update({ realm, id }, { ...wish, attributes }),
    );
  }
  await ensureScopeContent(run, scope, id);
}

/** Mappers and roles of a scope are exactly those declared: each of them is a right. */
async function ensureScopeContent(run: RealmRun, scope: ClientScope, id: string): Promise<void> {
  const { admin } = run;
  const realm = run.realm.name;
  await ensureMappers(run, scope.name, mappers(scope), await admin.clientScopes.listProtocolMappers({ realm, id }), {
    add: (wish) => admin.clientScopes.addProtocolMapper({ realm, id }, wish),
    update: (mapperId, wish) => admin.clientScopes.updateProtocolMapper({ realm, id, mapperId }, wish),
    remove: (mapperId) => admin.clientScopes.delProtocolMapper({ realm, id, mapperId }),
  });
  await ensureRoles(
    run,
    'role of scope',
    scope.name,
    scope.roles,
    await admin.clientScopes.listRealmScopeMappings({ realm, id }),
    {
      add: (roles) => admin.clientScopes.addRealmScopeMappings({ realm, id }, roles),
      remove: (roles) => admin.clientScopes.delRealmScopeMappings({ realm, id }, roles),
    },
  );
}

/** Ensures a client. @returns it as stored, undefined when it is absent and this run only reports */
async function ensureClient(
  { admin, realm, changes }: RealmRun,
  wish: ClientRepresentation,
): Promise<StoredClient | undefined> {
  const clientId = wish.clientId ?? '';
  const [stored] = await admin.clients.find({ realm: realm.name, clientId });
  const own = { kind: 'client', name: clientId };
  if (stored?.id === undefined) {
    const made = await changes.make({ ...own, action: 'create', fields: [] }, () =>
      admin.clients.create({ realm: realm.name, ...wish }),
    );
    return made && { clientId, id: made.id };
  }
  const { id } = stored;
  // Whoever disabled a client, such as that of a suspended tenant, had a reason: only those who know it enable it again.
  const { enabled = true } = stored;
  const fields = differences({ ...wish, enabled }, ordered(stored));
  if (fields.length > 0) {
    // Keycloak replaces the attributes as a whole: those of others are sent back to it.
    const attributes = { ...stored.attributes, ...wish.attributes };
    await changes.make({ ...own, action: 'update', fields }, () =>
      admin.clients.update({ realm: realm.name, id }, { ...wish, enabled, attributes }),
    );
  }
  return { clientId, id };
}

/** Keycloak keeps these as sets, in no order. */
const ordered = (stored: ClientRepresentation): ClientRepresentation => ({
  ...stored,
  redirectUris: stored.redirectUris?.toSorted() ?? [],
  webOrigins: stored.webOrigins?.toSorted() ?? [],
});

/** What a client's tokens say comes from its declared scopes and from nothing else. */
async function ensureTokens(run: RealmRun, { clientId, id }: StoredClient, scopes: readonly string[]): Promise<void> {
  const { admin } = run;
  const realm = run.realm.name;
  const known = await admin.clientScopes.find({ realm });
  const idOf = (name: string): string => known.find((scope) => scope.name === name)?.id ?? '';
  const byDefault = await admin.clients.listDefaultClientScopes({ realm, id });
  await ensureNames(run, 'scope of client', clientId, scopes, byDefault.map(nameOf), {
    add: (name) => admin.clients.addDefaultClientScope({ realm, id, clientScopeId: idOf(name) }),
    remove: (name) => admin.clients.delDefaultClientScope({ realm, id, clientScopeId: idOf(name) }),
  });
  const optional = await admin.clients.listOptionalClientScopes({ realm, id });
  await ensureNames(run, 'optional scope of client', clientId, [], optional.map(nameOf), {
    add: (name) => admin.clients.addOptionalClientScope({ realm, id, clientScopeId: idOf(name) }),
    remove: (name) => admin.clients.delOptionalClientScope({ realm, id, clientScopeId: idOf(name) }),
  });
  await ensureMappers(run, clientId, [], await admin.clients.listProtocolMappers({ realm, id }), {
    add: (wish) => admin.clients.addProtocolMapper({ realm, id }, wish),
    update: (mapperId, wish) => admin.clients.updateProtocolMapper({ realm, id, mapperId }, wish),
    remove: (mapperId) => admin.clients.delProtocolMapper({ realm, id, mapperId }),
  });
  await ensureRoles(run, 'role of client', clientId, [], await admin.clients.listRealmScopeMappings({ realm, id }), {
    add: (roles) => admin.clients.addRealmScopeMappings({ realm, id }, roles),
    remove: (roles) => admin.clients.delRealmScopeMappings({ realm, id }, roles),
  });
}

const nameOf = ({ name }: { readonly name?: string }): string => name ?? '';

interface Writes<Item> {
  readonly add: (item: Item) => Promise<unknown>;
  readonly remove: (item: Item) => Promise<unknown>;
}

/** Makes a set of names exactly what is wished. */
export async function ensureNames(
  { changes }: RealmRun,
  kind: string,
  owner: string,
  wished: readonly string[],
  stored: readonly string[],
  { add, remove }: Writes<string>,
): Promise<void> {
  for (const name of wished.filter((own) => !stored.includes(own))) {
    await changes.make({ action: 'create', kind, name: `${owner}/${name}`, fields: [] }, () => add(name));
  }
  for (const name of stored.filter((own) => !wished.includes(own))) {
    await changes.make({ action: 'remove', kind, name: `${owner}/${name}`, fields: [] }, () => remove(name));
  }
}

/** A role as Keycloak wants it in mappings. */
export interface RoleReference {
  readonly id: string;
  readonly name: string;
}

/** Makes a set of realm roles exactly what is wished. */
export async function ensureRoles(
  run: RealmRun,
  kind: string,
  owner: string,
  wished: readonly string[],
  stored: readonly RoleRepresentation[],
  writes: Writes<RoleReference[]>,
): Promise<void> {
  const { admin, realm } = run;
  const reference = async (name: string): Promise<RoleReference[]> => {
    const role = await admin.roles.findOneByName({ realm: realm.name, name });
    return role?.id === undefined ? [] : [{ id: role.id, name }];
  };
  await ensureNames(run, kind, owner, wished, stored.map(nameOf), {
    add: async (name) => writes.add(await reference(name)),
    remove: async (name) => writes.remove(await reference(name)),
  });
}

interface MapperWrites {
  readonly add: (wish: ProtocolMapperRepresentation) => Promise<unknown>;
  readonly update: (id: string, wish: ProtocolMapperRepresentation) => Promise<unknown>;
  readonly remove: (id: string) => Promise<unknown>;
}

/** Makes the mappers of a scope or a client exactly what is wished: an audience or tenant too many is a right too many. */
async function ensureMappers(
  { changes }: RealmRun,
  owner: string,
  wishes: readonly ProtocolMapperRepresentation[],
  stored: readonly ProtocolMapperRepresentation[],
  { add, update, remove }: MapperWrites,
): Promise<void> {
  const own = (mapper: ProtocolMapperRepresentation) => ({ kind: 'mapper', name: `${owner}/${mapper.name}` });
  for (const wish of wishes) {
    const current = stored.find(({ name }) => name === wish.name);
    if (current?.id === undefined) {
      await changes.make({ ...own(wish), action: 'create', fields: [] }, () => add(wish));
      continue;
    }
    const { id } = current;
    const fields = differences(wish, current);
    if (fields.length > 0) {
      await changes.make({ ...own(wish), action: 'update', fields }, () => update(id, { ...wish, id }));
    }
  }
  for (const mapper of stored.filter(({ name }) => !wishes.some((wish) => wish.name === name))) {
    await changes.make({ ...own(mapper), action: 'remove', fields: [] }, () => remove(mapper.id ?? ''));
  }
}
