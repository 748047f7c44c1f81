import { type Caller, type GovernedEnv, type Handlers, Problem, platformTenant } from '@somagent/governance';
import type { Context } from 'hono';
import type { Accounts } from './accounts.ts';
import type { ApiKeys } from './api-keys.ts';
import type { ControlFeed } from './control-feed.ts';
import { controlStream } from './control-stream.ts';
import type { Directory } from './directory.ts';
import type { Halts } from './halts.ts';
import type { Keycloak } from './keycloak.ts';
import type { Origin } from './ledger.ts';
import { problems } from './problems.ts';
import type { Reconciliation } from './reconciliation.ts';
import type { Revocations } from './revocations.ts';
import type { Routes } from './routes.ts';
import type { Tenants } from './tenants.ts';
import type { Training } from './training.ts';

/** What the handlers work with. */
export interface HandlerDependencies {
  readonly tenants: Tenants;
  readonly accounts: Accounts;
  readonly directory: Directory;
  readonly keycloak: Keycloak;
  readonly keys: ApiKeys;
  readonly training: Training;
  readonly halts: Halts;
  readonly revocations: Revocations;
  readonly reconciliation: Reconciliation;
  readonly feed: ControlFeed;
  /** Aborts when the pod shuts down: clients of the feed then go to another replica. */
  readonly draining: AbortSignal;
}

type All = Handlers<Routes>;

/** The handlers of the routes. */
export function createHandlers(dependencies: HandlerDependencies): All {
  return {
    ...tenantHandlers(dependencies),
    ...accountHandlers(dependencies),
    ...keyHandlers(dependencies),
    ...trainingHandlers(dependencies),
    ...controlHandlers(dependencies),
  };
}

function tenantHandlers({ tenants, directory, accounts, keycloak }: HandlerDependencies) {
  return {
    listTenants: async (context) => {
      const { tenant } = context.get('caller');
      const found = tenant === platformTenant ? await tenants.list() : [await tenants.get(tenant)];
      return context.json({ tenants: found.map(mutable) }, 200);
    },
    getTenant: async (context) => context.json(await tenants.get(context.req.valid('param').tenant), 200),
    putTenant: async (context) => {
      const { tenant } = context.req.valid('param');
      if (tenant === platformTenant) throw new Problem('invalid-request', `${platformTenant} is the platform itself`);
      const view = await tenants.put(originOf(context), tenant, context.req.valid('json').displayName);
      await keycloak.ensureGroups(tenant, []);
      return context.json(view, 200);
    },
    suspendTenant: async (context) => {
      const { tenant } = context.req.valid('param');
      const view = await tenants.suspend(originOf(context), tenant, context.req.valid('json').reason);
      directory.follow({ tenant });
      return context.json(view, 200);
    },
    restoreTenant: async (context) => {
      const { tenant } = context.req.valid('param');
      const view = await tenants.restore(originOf(context), tenant, context.req.valid('json').reason);
      directory.follow({ tenant });
      return context.json(view, 200);
    },
    listTeams: async (context) => context.json({ teams: await accounts.teams(context.req.valid('param').tenant) }, 200),
    putTeam: async (context) => {
      const { tenant, id } = context.req.valid('param');
      await directory.putTeam(originOf(context), tenant, id);
      return context.body(null, 204);
    },
    deleteTeam: async (context) => {
      const { tenant, id } = context.req.valid('param');
      await directory.removeTeam(originOf(context), tenant, id);
      return context.body(null, 204);
    },
  } satisfies Partial<All>;
}

function accountHandlers({ accounts, directory, keycloak, revocations }: HandlerDependencies) {
  return {
    listUsers: async (context) => {
      const { limit, after } = context.req.valid('query');
      const users = await accounts.list(context.req.valid('param').tenant, 'user', limit, after);
      return context.json({ users: users.map(mutable) }, 200);
    },
    getUser: async (context) => {
      const { tenant, id } = context.req.valid('param');
      return context.json(mutable(await accounts.get(tenant, 'user', id)), 200);
    },
    putUser: async (context) => {
      const { tenant, username } = context.req.valid('param');
      const result = await directory.putUser(originOf(context), tenant, { username, ...context.req.valid('json') });
      return context.json({ ...result, account: mutable(result.account) }, 200);
    },
    deleteUser: async (context) => {
      const { tenant, id } = context.req.valid('param');
      await directory.remove(originOf(context), tenant, 'user', id);
      return context.body(null, 204);
    },
    suspendUser: async (context) => {
      const { tenant, id } = context.req.valid('param');
      const view = await accounts.suspend(originOf(context), tenant, id, context.req.valid('json').reason);
      directory.follow({ id });
      return context.json(mutable(view), 200);
    },
    restoreUser: async (context) => {
      const { tenant, id } = context.req.valid('param');
      const view = await accounts.restore(originOf(context), tenant, id, context.req.valid('json').reason);
      directory.follow({ id });
      return context.json(mutable(view), 200);
    },
    revokeCredential: async (context) => {
      const { tenant } = context.req.valid('param');
      const { kind, id, reason } = context.req.valid('json');
      return context.json({ changed: await revocations.revoke(originOf(context), tenant, kind, id, reason) }, 200);
    },
    listServiceAccounts: async (context) => {
      const { limit, after } = context.req.valid('query');
      const found = await accounts.list(context.req.valid('param').tenant, 'service-account', limit, after);
      return context.json({ serviceAccounts: found.map(mutable) }, 200);
    },
    putServiceAccount: async (context) => {
      const { tenant, username } = context.req.valid('param');
      const request = { username, email: null, ...context.req.valid('json') };
      const result = await directory.putServiceAccount(originOf(context), tenant, request);
      return context.json({ ...result, account: mutable(result.account) }, 200);
    },
    rotateSecret: async (context) => {
      const { tenant, id } = context.req.valid('param');
      const account = await accounts.recordRotation(originOf(context), tenant, id);
      const credential = await keycloak.newClientSecret(account.username);
      return context.json({ account: mutable(account), credential }, 200);
    },
    deleteServiceAccount: async (context) => {
      const { tenant, id } = context.req.valid('param');
      await directory.remove(originOf(context), tenant, 'service-account', id);
      return context.body(null, 204);
    },
  } satisfies Partial<All>;
}

function keyHandlers({ keys }: HandlerDependencies) {
  return {
    listApiKeys: async (context) => {
      const found = await keys.list(context.req.valid('param').tenant, context.req.valid('query').owner);
      return context.json({ apiKeys: found.map((key) => ({ ...key, scopes: [...key.scopes] })) }, 200);
    },
    createApiKey: async (context) => {
      const { tenant } = context.req.valid('param');
      const idempotencyKey = context.req.valid('header')['idempotency-key'];
      const { key, secret } = await keys.create(originOf(context), tenant, context.req.valid('json'), idempotencyKey);
      // Whoever keeps answers keeps the secret.
      context.header('cache-control', 'no-store');
      return context.json({ key: { ...key, scopes: [...key.scopes] }, secret }, 201);
    },
    revokeApiKey: async (context) => {
      const { tenant, id } = context.req.valid('param');
      const key = await keys.revoke(originOf(context), tenant, id, context.req.valid('json').reason);
      return context.json({ ...key, scopes: [...key.scopes] }, 200);
    },
    verifyApiKey: async (context) => {
      requireWorkload(context.get('caller'));
      const holder = await keys.verify(context.req.valid('json').key);
      if (holder === null) return context.json({ holder }, 200);
      const { roles, teams, scopes } = holder;
      return context.json({ holder: { ...holder, roles: [...roles], teams: [...teams], scopes: [...scopes] } }, 200);
    },
  } satisfies Partial<All>;
}

function trainingHandlers({ training }: HandlerDependencies) {
  return {
    getTraining: async (context) => context.json(await training.get(context.req.valid('param').tenant), 200),
    proposeUnlock: async (context) => {
      const { reason, seconds } = context.req.valid('json');
      const { tenant } = context.req.valid('param');
      return context.json(await training.propose(originOf(context), tenant, reason, seconds), 200);
    },
    approveUnlock: async (context) => {
      const { tenant, id } = context.req.valid('param');
      return context.json(await training.approve(originOf(context), tenant, id), 200);
    },
    lockTraining: async (context) => {
      const { tenant } = context.req.valid('param');
      return context.json(await training.lock(originOf(context), tenant, context.req.valid('json').reason), 200);
    },
  } satisfies Partial<All>;
}

function controlHandlers({ feed, halts, draining, reconciliation }: HandlerDependencies) {
  return {
    getControl: async (context) => context.json(visibleTo(context.get('caller'), feed), 200),
    streamControl: async (context) => {
      requireWorkload(context.get('caller'));
      return controlStream(context, feed, draining);
    },
    haltAll: async (context) => {
      const changed = await halts.halt(originOf(context), null, context.req.valid('json').reason);
      return context.json({ changed }, 200);
    },
    resumeAll: async (context) => {
      const changed = await halts.resume(originOf(context), null, context.req.valid('json').reason);
      return context.json({ changed }, 200);
    },
    haltTenant: async (context) => {
      const { tenant } = context.req.valid('param');
      const changed = await halts.halt(originOf(context), tenant, context.req.valid('json').reason);
      return context.json({ changed }, 200);
    },
    resumeTenant: async (context) => {
      const { tenant } = context.req.valid('param');
      const changed = await halts.resume(originOf(context), tenant, context.req.valid('json').reason);
      return context.json({ changed }, 200);
    },
    reportDifferences: async (context) => {
      requirePlatform(context.get('caller'));
      const { differences, repaired, failed } = await reconciliation.report();
      return context.json({ differences: [...differences], repaired, failed: [...failed] }, 200);
    },
    repairDifferences: async (context) => {
      requirePlatform(context.get('caller'));
      const { differences, repaired, failed } = await reconciliation.repair();
      return context.json({ differences: [...differences], repaired, failed: [...failed] }, 200);
    },
  } satisfies Partial<All>;
}

/** Who asks, for the audit event. */
function originOf(context: Context<GovernedEnv>): Origin {
  const { kind, subject, client } = context.get('caller');
  return { actor: { kind, id: subject, client }, requestId: context.get('requestId') };
}

/** Revoked credentials are nobody's reading; of other tenants not even the names are. */
function visibleTo({ tenant }: Caller, feed: ControlFeed) {
  const { revision, halted, suspended, training } = feed.view.snapshot;
  if (tenant === platformTenant) return { revision, halted, suspended, training };
  const own = (names: readonly string[]) => names.filter((name) => name === tenant);
  return {
    revision,
    halted: { all: halted.all, tenants: own(halted.tenants) },
    suspended: {
      tenants: own(suspended.tenants),
      users: suspended.users.filter((user) => user.startsWith(`${tenant}/`)),
    },
    training: { unlocked: own(training.unlocked) },
  };
}

/** The policy lists which ones; people with the capability have `GET /v1/control`, which shows their own tenant. */
function requireWorkload({ kind }: Caller): void {
  if (kind !== 'workload') throw new Problem(problems.platformOnly, 'this is for workloads of the platform');
}

function requirePlatform({ tenant }: Caller): void {
  if (tenant !== platformTenant) throw new Problem(problems.platformOnly, 'this shows every tenant');
}

const mutable = <View extends object>(view: View): Mutable<View> => structuredClone(view) as Mutable<View>;
type Mutable<View> = {
  -readonly [Name in keyof View]: View[Name] extends readonly (infer Item)[] ? Item[] : View[Name];
};
