import { type Caller, Problem, type RelationChecker } from '@somagent/governance';
import { objectOf } from '@somagent/relations/tuples.ts';

/** Whom a request is counted for, beside tenant and subject. */
export interface Attribution {
  readonly team: string | null;
  /** OAuth client of the agent, or the id of its API key: from the credential, never from the request. */
  readonly persona: string | null;
  readonly sessionId: string | null;
}

/** What a request says about it. */
export interface AttributionHeaders {
  readonly 'x-soma-session'?: string | undefined;
  readonly 'x-soma-team'?: string | undefined;
}

/**
 * Whom a request is counted for. A team must be one of the caller's, a session one that the caller can use.
 * @throws Problem forbidden, not-found or unavailable
 */
export async function attribute(
  caller: Caller,
  headers: AttributionHeaders,
  relations: RelationChecker,
): Promise<Attribution> {
  const team = teamOf(caller, headers['x-soma-team']);
  const sessionId = headers['x-soma-session'] ?? null;
  if (sessionId !== null) await requireUse(caller, sessionId, relations);
  return { team, persona: caller.client, sessionId };
}

function teamOf({ teams }: Caller, named: string | undefined): string | null {
  if (named === undefined) return teams.toSorted()[0] ?? null;
  if (teams.includes(named)) return named;
  throw new Problem('forbidden', `you are not in the team ${named}: name one of yours`, {}, 'x-soma-team');
}

/** As on the routes of sessions: what a caller may not use does not exist for it. */
async function requireUse(caller: Caller, sessionId: string, relations: RelationChecker): Promise<void> {
  const { held } = await relations
    .check(caller, 'can_use', objectOf('session', caller.tenant, sessionId), { use: 'write' })
    .catch(() => {
      throw new Problem('unavailable', 'relations cannot be checked at the moment: try again', { 'retry-after': '2' });
    });
  if (!held) throw new Problem('not-found', `session ${sessionId} does not exist`, {}, 'x-soma-session');
}
