import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { CliFailure, exitCodes } from './failure.ts';
import { Gateway } from './gateway.ts';
import { formatTable } from './print.ts';
import type { SessionContext } from './session.ts';

/** What the commands of administrators need of their surroundings. */
export interface AdministrationContext extends SessionContext {
  /** Address of the identity service. */
  readonly accountsUrl: () => string;
}

/** Options of every command: the tenant it is about. */
export interface TenantOption {
  /** @default the only one that the caller sees */
  readonly tenant?: string;
}

/** Options of what needs a reason; it stands in the audit log. */
export interface ReasonOption {
  readonly reason: string;
}

const tenant = z.looseObject({
  tenant: z.string(),
  displayName: z.string(),
  standing: z.string(),
  halted: z.boolean(),
  training: z.string(),
});
const account = z.looseObject({
  id: z.string(),
  username: z.string(),
  roles: z.array(z.string()),
  teams: z.array(z.string()),
  standing: z.string(),
});
const apiKey = z.looseObject({
  id: z.string(),
  owner: z.string(),
  name: z.string(),
  scopes: z.array(z.string()),
  expiresAt: z.string(),
  revokedAt: z.string().nullable(),
});
const proposal = z.looseObject({
  id: z.string(),
  proposedBy: z.string(),
  reason: z.string(),
  expiresAt: z.string(),
});
const training = z.looseObject({ training: z.string(), proposal: proposal.nullable() });
const changed = z.looseObject({ changed: z.boolean() });
const tenants = z.looseObject({ tenants: z.array(tenant) });
const users = z.looseObject({ users: z.array(account) });

const signIn = async (context: AdministrationContext): Promise<Gateway> =>
  Gateway.signIn({ ...(await context.target()), gatewayUrl: context.accountsUrl() }, context.signal);

function print(context: AdministrationContext, value: unknown, text: string): void {
  context.write(context.json ? `${JSON.stringify(value)}\n` : text);
}

/** Path of a tenant: the one that is named, else the only one that the caller sees. */
async function pathOf(api: Gateway, { tenant: name }: TenantOption, rest = ''): Promise<string> {
  if (name !== undefined) return `/v1/tenants/${encodeURIComponent(name)}${rest}`;
  const { tenants: seen } = await api.json(tenants, 'GET', '/v1/tenants');
  const [only] = seen;
  if (only !== undefined && seen.length === 1) return `/v1/tenants/${encodeURIComponent(only.tenant)}${rest}`;
  throw new CliFailure(
    `you see ${seen.length} tenants`,
    `name one: --tenant ${seen.map(({ tenant: each }) => each).join(' | ')}`,
    exitCodes.usage,
  );
}

type Tenant = z.output<typeof tenant>;
const tenantRow = (view: Tenant) => [
  view.tenant,
  view.standing,
  view.halted ? 'halted' : 'running',
  view.training,
  view.displayName,
];
const tenantHeader = ['TENANT', 'STANDING', 'WORK', 'TRAINING', 'NAME'];

/** Lists the tenants that the caller sees. */
export async function listTenants(context: AdministrationContext): Promise<void> {
  const page = await (await signIn(context)).json(tenants, 'GET', '/v1/tenants');
  print(context, page, formatTable(tenantHeader, page.tenants.map(tenantRow)));
}

/** Creates a tenant or changes its displayed name. */
export async function putTenant(context: AdministrationContext, name: string, displayName: string): Promise<void> {
  const api = await signIn(context);
  const view = await api.json(tenant, 'PUT', await pathOf(api, { tenant: name }), { body: { displayName } });
  print(context, view, formatTable(tenantHeader, [tenantRow(view)]));
}

/** Suspends a tenant or undoes it. */
export async function standTenant(
  context: AdministrationContext,
  action: 'suspend' | 'restore',
  name: string,
  { reason }: ReasonOption,
): Promise<void> {
  const api = await signIn(context);
  const view = await api.json(tenant, 'POST', await pathOf(api, { tenant: name }, `/${action}`), { body: { reason } });
  print(context, view, formatTable(tenantHeader, [tenantRow(view)]));
}

const userHeader = ['USER', 'STANDING', 'ROLES', 'TEAMS', 'ID'];
const userRow = ({ username, standing, roles, teams, id }: z.output<typeof account>) => [
  username,
  standing,
  roles.join(',') || '-',
  teams.join(',') || '-',
  id,
];
const pageSize = 200;

/** Every person of a tenant, page by page. */
async function* everyUser(api: Gateway, option: TenantOption): AsyncGenerator<z.output<typeof account>> {
  for (let after = ''; ; ) {
    const query = new URLSearchParams({ limit: String(pageSize), ...(after !== '' && { after }) });
    const page = await api.json(users, 'GET', await pathOf(api, option, `/users?${query}`));
    yield* page.users;
    if (page.users.length < pageSize) return;
    after = page.users.at(-1)?.username ?? '';
  }
}

/** Lists the people of a tenant. */
export async function listUsers(context: AdministrationContext, option: TenantOption): Promise<void> {
  const found: z.output<typeof account>[] = [];
  for await (const user of everyUser(await signIn(context), option)) found.push(user);
  print(context, { users: found }, formatTable(userHeader, found.map(userRow)));
}

/** What a person shall be. */
export interface UserOptions extends TenantOption {
  readonly email?: string;
  /** @default ['member'] */
  readonly role?: readonly string[];
  /** @default none */
  readonly team?: readonly string[];
}

const put = z.looseObject({ account, credential: z.string().nullable() });

/** Creates a person, or changes roles, teams and address of one. */
export async function putUser(context: AdministrationContext, username: string, options: UserOptions): Promise<void> {
  const api = await signIn(context);
  const { email = null, role: roles = ['member'], team: teams = [] } = options;
  const path = await pathOf(api, options, `/users/by-name/${encodeURIComponent(username)}`);
  const result = await api.json(put, 'PUT', path, { body: { email, roles, teams } });
  const password = result.credential === null ? '' : `temporary password, shown this once: ${result.credential}\n`;
  print(context, result, formatTable(userHeader, [userRow(result.account)]) + password);
}

/** Suspends a person or undoes it. */
export async function standUser(
  context: AdministrationContext,
  action: 'suspend' | 'restore',
  username: string,
  options: TenantOption & ReasonOption,
): Promise<void> {
  const api = await signIn(context);
  const id = await idOf(api, username, options);
  const path = await pathOf(api, options, `/users/${encodeURIComponent(id)}/${action}`);
  const view = await api.json(account, 'POST', path, { body: { reason: options.reason } });
  print(context, view, formatTable(userHeader, [userRow(view)]));
}

async function idOf(api: Gateway, username: string, option: TenantOption): Promise<string> {
  for await (const user of everyUser(api, option)) {
    if (user.username === username || user.id === username) return user.id;
  }
  throw new CliFailure(`there is no user "${username}"`, 'soma user list', exitCodes.absent);
}

const keyHeader = ['KEY', 'STATE', 'EXPIRES', 'SCOPES', 'NAME'];
const keyRow = (key: z.output<typeof apiKey>) => [
  key.id,
  key.revokedAt === null ? 'good' : 'revoked',
  key.expiresAt,
  key.scopes.join(','),
  key.name,
];

/** Lists the API keys of a tenant. */
export async function listKeys(context: AdministrationContext, option: TenantOption): Promise<void> {
  const api = await signIn(context);
  const page = await api.json(
    z.looseObject({ apiKeys: z.array(apiKey) }),
    'GET',
    await pathOf(api, option, '/api-keys'),
  );
  print(context, page, formatTable(keyHeader, page.apiKeys.map(keyRow)));
}

/** What an API key shall be. */
export interface KeyOptions extends TenantOption {
  readonly owner: string;
  readonly scope: readonly string[];
  readonly days: number;
}

/** Makes an API key and shows it, once. */
export async function createKey(context: AdministrationContext, name: string, options: KeyOptions): Promise<void> {
  const api = await signIn(context);
  const owner = await idOf(api, options.owner, options);
  const made = await api.json(
    z.looseObject({ key: apiKey, secret: z.string() }),
    'POST',
    await pathOf(api, options, '/api-keys'),
    {
      body: { owner, name, scopes: options.scope, days: options.days },
      headers: { 'idempotency-key': randomUUID() },
    },
  );
  print(context, made, `${formatTable(keyHeader, [keyRow(made.key)])}shown this once: ${made.secret}\n`);
}

/** Revokes an API key, everywhere at once. */
export async function revokeKey(
  context: AdministrationContext,
  id: string,
  options: TenantOption & ReasonOption,
): Promise<void> {
  const api = await signIn(context);
  const path = await pathOf(api, options, `/api-keys/${encodeURIComponent(id)}/revoke`);
  const key = await api.json(apiKey, 'POST', path, { body: { reason: options.reason } });
  print(context, key, formatTable(keyHeader, [keyRow(key)]));
}

/** Shows the training mode of a tenant and the proposal that waits. */
export async function showTraining(context: AdministrationContext, option: TenantOption): Promise<void> {
  const api = await signIn(context);
  printTraining(context, await api.json(training, 'GET', await pathOf(api, option, '/training')));
}

/** Proposes to unlock training; somebody else has to approve. */
export async function proposeUnlock(
  context: AdministrationContext,
  options: TenantOption & ReasonOption & { readonly seconds: number },
): Promise<void> {
  const api = await signIn(context);
  const { reason, seconds } = options;
  const made = await api.json(proposal, 'POST', await pathOf(api, options, '/training/proposals'), {
    body: { reason, seconds },
  });
  const next = `somebody else, before ${made.expiresAt}: ${context.command} training approve ${made.id}\n`;
  print(context, made, `proposal  ${made.id}\n${next}`);
}

/** Approves a proposal of somebody else. */
export async function approveUnlock(context: AdministrationContext, id: string, option: TenantOption): Promise<void> {
  const api = await signIn(context);
  const path = await pathOf(api, option, `/training/proposals/${encodeURIComponent(id)}/approve`);
  printTraining(context, await api.json(training, 'POST', path));
}

/** Locks training at once. */
export async function lockTraining(
  context: AdministrationContext,
  options: TenantOption & ReasonOption,
): Promise<void> {
  const api = await signIn(context);
  const path = await pathOf(api, options, '/training/lock');
  printTraining(context, await api.json(training, 'POST', path, { body: { reason: options.reason } }));
}

function printTraining(context: AdministrationContext, view: z.output<typeof training>): void {
  const { proposal: open } = view;
  const waits =
    open === null ? '' : `proposal  ${open.id} of ${open.proposedBy} until ${open.expiresAt}: ${open.reason}\n`;
  print(context, view, `training  ${view.training}\n${waits}`);
}

/** Pulls the kill switch, for a tenant or for everything, or undoes it. */
export async function setHalt(
  context: AdministrationContext,
  action: 'halt' | 'resume',
  { tenant: name, reason }: TenantOption & ReasonOption,
): Promise<void> {
  const api = await signIn(context);
  const path = name === undefined ? `/v1/control/${action}` : await pathOf(api, { tenant: name }, `/${action}`);
  const result = await api.json(changed, 'POST', path, { body: { reason } });
  const what = name === undefined ? 'everything' : `tenant ${name}`;
  const state = action === 'halt' ? 'halted' : 'resumed';
  print(context, result, result.changed ? `${what} is ${state}\n` : `${what} was ${state} before\n`);
}
