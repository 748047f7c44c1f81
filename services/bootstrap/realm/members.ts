import type GroupRepresentation from '@keycloak/keycloak-admin-client/lib/defs/groupRepresentation.js';
import type { ResolvedRealm } from '../realm-types.ts';
import { ensureNames, ensureRoles, given, type RealmRun, type StoredClient } from './apply.ts';
import { differences } from './difference.ts';

/** Internal id of each group, by its path: `/acme`, `/acme/blue`. */
type Groups = ReadonlyMap<string, string>;

type Member = Pick<ResolvedRealm['people'][number], 'tenant' | 'teams' | 'roles'>;

/** Client of Keycloak whose roles are rights on the realm. */
const managementClient = 'realm-management';

/** Ensures a group for each tenant and, in it, one for each team; the attribute is what tokens say. */
export async function applyTenants(run: RealmRun): Promise<Groups> {
  const { admin } = run;
  const realm = run.realm.name;
  const groups = new Map<string, string>();
  for (const tenant of run.realm.tenants) {
    const found = await admin.groups.find({ realm, search: tenant.name, exact: true, briefRepresentation: false });
    const stored = found.find(({ name }) => name === tenant.name);
    const id = await ensureGroup(
      run,
      `/${tenant.name}`,
      { name: tenant.name, attributes: { tenant: [tenant.name] } },
      stored,
      (wish) => admin.groups.create({ realm, ...wish }),
    );
    if (id === undefined) continue;
    groups.set(`/${tenant.name}`, id);
    const teams = await admin.groups.listSubGroups({ realm, parentId: id, briefRepresentation: false, max: 1000 });
    for (const team of tenant.teams) {
      const path = `/${tenant.name}/${team}`;
      const wish = { name: team, attributes: { team: [team] } };
      const current = teams.find(({ name }) => name === team);
      const teamId = await ensureGroup(run, path, wish, current, (group) =>
        admin.groups.createChildGroup({ realm, id }, group),
      );
      if (teamId !== undefined) groups.set(path, teamId);
    }
  }
  return groups;
}

async function ensureGroup(
  { admin, realm, changes }: RealmRun,
  path: string,
  wish: GroupRepresentation,
  stored: GroupRepresentation | undefined,
  create: (wish: GroupRepresentation) => Promise<{ id: string }>,
): Promise<string | undefined> {
  const own = { kind: 'group', name: path };
  if (stored?.id === undefined) {
    return (await changes.make({ ...own, action: 'create', fields: [] }, () => create(wish)))?.id;
  }
  const { id } = stored;
  const fields = differences(wish, stored);
  if (fields.length > 0) {
    const attributes = { ...stored.attributes, ...wish.attributes };
    await changes.make({ ...own, action: 'update', fields }, () =>
      admin.groups.update({ realm: realm.name, id }, { ...wish, attributes }),
    );
  }
  return id;
}

/** Gives the service account of each client its tenant, teams, roles and rights on the realm. */
export async function applyServiceAccounts(
  run: RealmRun,
  stored: readonly StoredClient[],
  groups: Groups,
): Promise<void> {
  const { admin } = run;
  const realm = run.realm.name;
  for (const { clientId, id } of stored) {
    const client = run.realm.clients.find((declared) => declared.clientId === clientId);
    const user = await admin.clients.getServiceAccountUser({ realm, id });
    if (client === undefined || user.id === undefined) continue;
    await ensureMember(run, clientId, user.id, client, groups);
    await ensureManagementRoles(run, { clientId, id }, user.id, client.managementRoles);
  }
}

/** Ensures that declared people exist, with a first password, and are what is declared. Who was disabled stays so. */
export async function applyPeople(run: RealmRun, groups: Groups): Promise<void> {
  const { admin, changes, inputs } = run;
  const realm = run.realm.name;
  for (const person of run.realm.people) {
    const { username, firstName, lastName, email } = person;
    const wish = { username, firstName, lastName, email, emailVerified: true };
    const [stored] = await admin.users.find({ realm, username, exact: true });
    const own = { kind: 'person', name: username };
    let id = stored?.id;
    if (id === undefined) {
      const credentials = [{ type: 'password', value: given(inputs.passwords, 'user', username), temporary: false }];
      const made = await changes.make({ ...own, action: 'create', fields: [] }, () =>
        admin.users.create({ realm, ...wish, enabled: true, credentials }),
      );
      id = made?.id;
    } else {
      const userId = id;
      const fields = differences(wish, stored);
      if (fields.length > 0) {
        await changes.make({ ...own, action: 'update', fields }, () =>
          admin.users.update({ realm, id: userId }, { ...stored, ...wish }),
        );
      }
    }
    if (id !== undefined) await ensureMember(run, username, id, person, groups);
  }
}

const groupsOf = ({ tenant, teams }: Member): string[] =>
  tenant === undefined ? [] : [`/${tenant}`, ...teams.map((team) => `/${tenant}/${team}`)];

/** Groups are exactly those declared, and of the roles of this realm's declaration those that are given. */
async function ensureMember(run: RealmRun, who: string, id: string, member: Member, groups: Groups): Promise<void> {
  const { admin } = run;
  const realm = run.realm.name;
  const stored = await admin.users.listGroups({ realm, id, max: 1000 });
  const idOf = (path: string): string => stored.find((group) => group.path === path)?.id ?? groups.get(path) ?? '';
  await ensureNames(
    run,
    'membership',
    who,
    groupsOf(member),
    stored.map(({ path }) => path ?? ''),
    {
      add: (path) => admin.users.addToGroup({ realm, id, groupId: idOf(path) }),
      remove: (path) => admin.users.delFromGroup({ realm, id, groupId: idOf(path) }),
    },
  );
  const declared = new Set(run.realm.roles.map(({ name }) => name));
  const own = (await admin.users.listRealmRoleMappings({ realm, id })).filter(({ name }) => declared.has(name ?? ''));
  await ensureRoles(run, 'role', who, member.roles, own, {
    add: (roles) => admin.users.addRealmRoleMappings({ realm, id, roles }),
    remove: (roles) => admin.users.delRealmRoleMappings({ realm, id, roles }),
  });
}

/** Keycloak asks twice: whether the account has the right, and whether the client may use it. */
async function ensureManagementRoles(
  run: RealmRun,
  { clientId, id }: StoredClient,
  userId: string,
  wished: readonly string[],
): Promise<void> {
  const { admin } = run;
  const realm = run.realm.name;
  const [management] = await admin.clients.find({ realm, clientId: managementClient });
  const client = management?.id ?? '';
  const reference = async (name: string) => {
    const role = await admin.clients.findRole({ realm, id: client, roleName: name });
    return [{ id: role?.id ?? '', name }];
  };
  const nameOf = ({ name }: { readonly name?: string }): string => name ?? '';
  const user = { realm, id: userId, clientUniqueId: client };
  const given = await admin.users.listClientRoleMappings(user);
  await ensureNames(run, 'right on the realm', clientId, wished, given.map(nameOf), {
    add: async (name) => admin.users.addClientRoleMappings({ ...user, roles: await reference(name) }),
    remove: async (name) => admin.users.delClientRoleMappings({ ...user, roles: await reference(name) }),
  });
  const used = await admin.clients.listClientScopeMappings({ realm, id, client });
  await ensureNames(run, 'right of client on the realm', clientId, wished, used.map(nameOf), {
    add: async (name) => admin.clients.addClientScopeMappings({ realm, id, client }, await reference(name)),
    remove: async (name) => admin.clients.delClientScopeMappings({ realm, id, client }, await reference(name)),
  });
}
