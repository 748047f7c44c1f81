import {
  type Authentication,
  createGovernedApp,
  type GovernanceOptions,
  type GovernedApp,
  type RelationChecker,
} from '@somagent/governance';
import type { Logger } from '@somagent/kit';
import type { ControlFeed } from './control-feed.ts';
import { createHandlers, type HandlerDependencies } from './handlers.ts';
import { handleLogout, isLogout, type LogoutParts, logoutRoute } from './logout-route.ts';
import { routes } from './routes.ts';

/** What the application is made of, besides what the handlers work with. */
export interface IdentityAppOptions extends Pick<GovernanceOptions, 'quota' | 'policy' | 'verdicts'> {
  /** Tokens of people and service accounts, and workloads; API keys are verified here. */
  readonly authentication: Omit<Authentication, 'apiKeys'>;
  readonly logout: LogoutParts['rules'];
  readonly handlers: HandlerDependencies;
  readonly log: Logger;
}

/** The HTTP application of the identity service. */
export function createIdentityApp(options: IdentityAppOptions): GovernedApp {
  const { handlers, log, quota, policy, verdicts, authentication } = options;
  const governed = createGovernedApp({
    service: 'identity',
    title: 'SomaGent identity',
    routes,
    handlers: createHandlers(handlers),
    authentication: { ...authentication, apiKeys: { verify: (key) => callerOf(handlers, key) } },
    control: ownControl(handlers.feed),
    quota,
    policy,
    verdicts,
    relations: noRelations,
    log,
  });
  const { accounts, revocations } = handlers;
  const logout = { rules: options.logout, accounts, revocations, verdicts, log };
  return {
    service: governed.service,
    hono: governed.hono,
    routes: () => [...governed.routes(), logoutRoute],
    fetch: (request, env) => (isLogout(request) ? handleLogout(request, logout) : governed.fetch(request, env)),
  };
}

/** This service asks itself what it tells all others. */
const ownControl = (feed: ControlFeed): GovernanceOptions['control'] => ({
  get ready() {
    return feed.ready;
  },
  halted: (tenant) => feed.view.halted(tenant),
  suspended: (tenant, subject) => feed.view.suspended(tenant, subject),
  revoked: (names) => feed.view.revoked(names),
  training: (tenant) => feed.view.training(tenant),
});

/** No route here asks for a relation: roles decide. One that did would be refused. */
const noRelations: RelationChecker = {
  check: () => Promise.reject(new Error('the identity service asks for no relations')),
};

async function callerOf({ keys }: HandlerDependencies, key: string) {
  const holder = await keys.verify(key);
  if (holder === null) return null;
  const { keyId, tenant, subject, roles, teams, scopes } = holder;
  return { kind: 'api-key' as const, tenant, subject, client: keyId, roles, teams, scopes, revocable: { keyId } };
}
