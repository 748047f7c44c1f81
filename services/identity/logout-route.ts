import { randomUUID } from 'node:crypto';
import { type ListedRoute, Problem, problemOf, type VerdictSink } from '@somagent/governance';
import type { Logger } from '@somagent/kit';
import type { Accounts } from './accounts.ts';
import { ownWork } from './ledger.ts';
import { type LogoutRules, logoutTokenOf, verifyLogout } from './logout.ts';
import type { Revocations } from './revocations.ts';

/** Where Keycloak says that a login session has ended. */
export const logoutPath = '/v1/backchannel-logout';

/**
 * The route as the list of routes shows it. Its credential is the logout token in its form, so it can't be declared
 * like the others; its verdicts are recorded like theirs.
 */
export const logoutRoute: ListedRoute = {
  method: 'POST',
  path: logoutPath,
  operationId: 'backchannelLogout',
  capability: 'session:logout',
  relation: null,
  audit: 'admin',
};

/** What the route works with. */
export interface LogoutParts {
  readonly rules: LogoutRules;
  readonly accounts: Accounts;
  readonly revocations: Revocations;
  readonly verdicts: VerdictSink;
  readonly log: Logger;
}

/** Whether the request is for {@link logoutRoute}. */
export const isLogout = ({ method, url }: Request): boolean =>
  method === logoutRoute.method && new URL(url).pathname === logoutPath;

/** Ends the session for the whole platform: its tokens are not accepted any more, although they have not expired. */
export async function handleLogout(request: Request, parts: LogoutParts): Promise<Response> {
  const requestId = randomUUID();
  const startedAt = performance.now();
  try {
    if (!parts.verdicts.accepting) throw new Problem('unavailable', 'verdicts cannot be recorded: try again');
    const ended = await verifyLogout(await logoutTokenOf(request), parts.rules);
    const tenant = ended.subject === null ? undefined : await parts.accounts.tenantOf(ended.subject);
    const origin = { ...ownWork('keycloak'), requestId };
    await parts.revocations.revoke(origin, tenant ?? null, 'session', ended.sid, 'the login session has ended');
    parts.verdicts.record(verdictOf(requestId, startedAt, tenant ?? null, null));
    return new Response(null, { status: 200, headers: { 'cache-control': 'no-store', 'x-request-id': requestId } });
  } catch (error) {
    const problem = problemOf(error);
    if (problem.type === 'internal') parts.log.error({ err: error, requestId }, 'a logout failed');
    if (parts.verdicts.accepting) parts.verdicts.record(verdictOf(requestId, startedAt, null, problem));
    return problem.toResponse(requestId);
  }
}

function verdictOf(requestId: string, startedAt: number, tenant: string | null, problem: Problem | null) {
  const { method, path, capability } = logoutRoute;
  return {
    time: new Date().toISOString(),
    requestId,
    tenant,
    actor: { kind: 'system', id: problem === null ? 'keycloak' : 'anonymous', client: null } as const,
    service: 'identity',
    route: 'backchannelLogout',
    method,
    path,
    capability,
    resource: null,
    allow: problem === null,
    rule: problem === null ? 'soma.identity.logout_token' : `soma.governance.${problem.type.replaceAll('-', '_')}`,
    reasons: [problem?.message ?? 'a logout token of the issuer'],
    revision: null,
    latencyUs: Math.round((performance.now() - startedAt) * 1000),
    status: problem?.status ?? null,
    input: null,
  };
}
