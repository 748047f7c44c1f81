import type KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import type ClientRepresentation from '@keycloak/keycloak-admin-client/lib/defs/clientRepresentation.js';
import type ProtocolMapperRepresentation from '@keycloak/keycloak-admin-client/lib/defs/protocolMapperRepresentation.js';
import { Failure } from '../failure.ts';
import { log } from '../log.ts';
import type { ResolvedRealm } from '../realm-types.ts';
import { agentClient, isCovered, mappers, realmSettings, resourceServer } from './desired.ts';

export interface Counts {
  created: number;
  updated: number;
  unchanged: number;
}

/** Brings the realm to what is declared. Fields, clients and mappers that nobody declared here are left alone. */
export async function applyRealm(
  admin: KeycloakAdminClient,
  realm: ResolvedRealm,
  secrets: ReadonlyMap<string, string>,
): Promise<Counts> {
  const counts: Counts = { created: 0, updated: 0, unchanged: 0 };
  await ensureRealm(admin, realm, counts);
  for (const name of realm.resourceServers) await ensureClient(admin, realm.name, resourceServer(name), counts);
  for (const client of realm.clients) {
    const wish = agentClient(client, secretOf(client.clientId, secrets));
    const id = await ensureClient(admin, realm.name, wish, counts);
    await ensureMappers(admin, realm.name, id, client.clientId, mappers(client), counts);
  }
  return counts;
}

function secretOf(clientId: string, secrets: ReadonlyMap<string, string>): string {
  const secret = secrets.get(clientId);
  if (secret === undefined) throw new Failure(`client ${clientId}: no secret`, `mount keycloak-client-${clientId}`);
  return secret;
}

async function ensureRealm(admin: KeycloakAdminClient, realm: ResolvedRealm, counts: Counts): Promise<void> {
  const wish = realmSettings(realm);
  const stored = await admin.realms.findOne({ realm: realm.name });
  if (stored === undefined || stored === null) {
    await admin.realms.create(wish);
    note(counts, 'created', 'realm', realm.name);
  } else if (isCovered(wish, stored)) {
    counts.unchanged += 1;
  } else {
    await admin.realms.update({ realm: realm.name }, wish);
    note(counts, 'updated', 'realm', realm.name);
  }
}

/** Ensures a client and returns its internal id. */
async function ensureClient(
  admin: KeycloakAdminClient,
  realm: string,
  wish: ClientRepresentation,
  counts: Counts,
): Promise<string> {
  const clientId = wish.clientId ?? '';
  const [stored] = await admin.clients.find({ realm, clientId });
  if (stored?.id === undefined) {
    const { id } = await admin.clients.create({ realm, ...wish });
    note(counts, 'created', 'client', clientId);
    return id;
  }
  if (isCovered(wish, stored)) {
    counts.unchanged += 1;
  } else {
    // Keycloak replaces the attributes as a whole: those of others are sent back to it.
    const attributes = { ...stored.attributes, ...wish.attributes };
    await admin.clients.update({ realm, id: stored.id }, { ...wish, attributes });
    note(counts, 'updated', 'client', clientId);
  }
  return stored.id;
}

async function ensureMappers(
  admin: KeycloakAdminClient,
  realm: string,
  id: string,
  clientId: string,
  wishes: readonly ProtocolMapperRepresentation[],
  counts: Counts,
): Promise<void> {
  const stored = await admin.clients.listProtocolMappers({ realm, id });
  for (const wish of wishes) {
    const current = stored.find((mapper) => mapper.name === wish.name);
    await ensureMapper(admin, { realm, id }, clientId, wish, current, counts);
  }
  // An audience that is no longer declared must not stay in tokens: it is a right that somebody took away.
  for (const mapper of stored) {
    const managed = mapper.protocolMapper === 'oidc-audience-mapper' || mapper.name === 'tenant';
    if (!managed || mapper.id === undefined || wishes.some((wish) => wish.name === mapper.name)) continue;
    await admin.clients.delProtocolMapper({ realm, id, mapperId: mapper.id });
    note(counts, 'updated', 'mapper removed', `${clientId}/${mapper.name}`);
  }
}

async function ensureMapper(
  admin: KeycloakAdminClient,
  client: { readonly realm: string; readonly id: string },
  clientId: string,
  wish: ProtocolMapperRepresentation,
  stored: ProtocolMapperRepresentation | undefined,
  counts: Counts,
): Promise<void> {
  if (stored?.id === undefined) {
    await admin.clients.addProtocolMapper(client, wish);
    note(counts, 'created', 'mapper', `${clientId}/${wish.name}`);
  } else if (isCovered(wish, stored)) {
    counts.unchanged += 1;
  } else {
    await admin.clients.updateProtocolMapper({ ...client, mapperId: stored.id }, { ...wish, id: stored.id });
    note(counts, 'updated', 'mapper', `${clientId}/${wish.name}`);
  }
}

function note(counts: Counts, change: 'created' | 'updated', kind: string, name: string): void {
  counts[change] += 1;
  log.info(`${kind} ${change}`, { name });
}
