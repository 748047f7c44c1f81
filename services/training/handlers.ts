import type { OutgoingEvent } from '@somagent/events';
import { type Caller, type Handlers, Problem } from '@somagent/governance';
import type { Approvals } from './approvals.ts';
import type { Requester } from './database.ts';
import type { TrainingLock, TrainingQuestion } from './lock.ts';
import { problems } from './problems.ts';
import type { Promotions } from './promotions.ts';
import type { Routes } from './routes.ts';
import type { Run, Runs } from './runs.ts';

/** What the handlers work with. */
export interface HandlerDependencies {
  readonly approvals: Approvals;
  readonly runs: Runs;
  readonly promotions: Promotions;
  readonly lock: TrainingLock;
  /** Records a verdict of the policy of training. */
  readonly record: (verdict: OutgoingEvent) => Promise<void>;
}

/** The handlers of the routes. Everything is of the caller's own tenant. */
export function createHandlers({ approvals, runs, promotions, lock, record }: HandlerDependencies): Handlers<Routes> {
  /** Beside the policy of requests, that of training decides. @throws Problem training-not-allowed. */
  const requireUnlocked = async (caller: Caller, capability: TrainingQuestion['capability'], requestId: string) => {
    const question = { tenant: caller.tenant, requester: requesterOf(caller), capability, runId: null, requestId };
    const { verdict, event } = lock.decide(question);
    await record(event);
    if (!verdict.allow) throw new Problem(problems.notAllowed, verdict.reasons.join('; '));
  };

  return {
    listApprovals: async (context) => {
      const { tenant } = context.get('caller');
      return context.json({ approvals: await approvals.list(tenant, context.req.valid('query').limit) }, 200);
    },
    approveSessions: async (context) => {
      const [caller, requestId] = [context.get('caller'), context.get('requestId')];
      requirePerson(caller);
      await requireUnlocked(caller, 'training:export', requestId);
      const { sessionIds, reason } = context.req.valid('json');
      const by = requesterOf(caller);
      return context.json(
        { sessionIds: await approvals.approve(caller.tenant, by, requestId, sessionIds, reason) },
        200,
      );
    },
    withdrawApprovals: async (context) => {
      const [caller, requestId] = [context.get('caller'), context.get('requestId')];
      const { sessionIds, reason } = context.req.valid('json');
      const by = requesterOf(caller);
      const withdrawn = await approvals.withdraw(caller.tenant, by, requestId, sessionIds, reason);
      return context.json({ sessionIds: withdrawn }, 200);
    },
    createRun: async (context) => {
      const [caller, requestId] = [context.get('caller'), context.get('requestId')];
      await requireUnlocked(caller, 'training:run', requestId);
      if ((await approvals.list(caller.tenant, 2)).length < 2) {
        throw new Problem(problems.nothingApproved, 'approve at least two sessions: one to train on, one to judge by');
      }
      const run = await runs.request(caller.tenant, requesterOf(caller), requestId, context.req.valid('json'));
      return context.json(viewOf(run), 202);
    },
    listRuns: async (context) => {
      const { tenant } = context.get('caller');
      const found = await runs.list(tenant, context.req.valid('query').limit);
      return context.json({ runs: found.map(viewOf) }, 200);
    },
    getRun: async (context) =>
      context.json(viewOf(await runs.get(context.get('caller').tenant, context.req.valid('param').id)), 200),
    promoteRun: async (context) => {
      const [caller, requestId] = [context.get('caller'), context.get('requestId')];
      requirePerson(caller);
      const { id } = context.req.valid('param');
      const { reason } = context.req.valid('json');
      return context.json(await promotions.promote(caller.tenant, requesterOf(caller), requestId, id, reason), 200);
    },
    getServingModel: async (context) => context.json(await promotions.serving(context.get('caller').tenant), 200),
  };
}

function requirePerson({ kind }: Caller): void {
  if (kind === 'user') return;
  throw new Problem(problems.notPerson, `you are known as ${kind}: sign in as a person (soma login)`);
}

function requesterOf({ subject, kind, client, roles, teams, scopes, revocable }: Caller): Requester {
  return { id: subject, kind, client, roles, teams, scopes, keyId: revocable.keyId ?? null };
}

function viewOf({ id, state, reasons, requester, recipe, gate, lineage, created_at, ended_at }: Run) {
  return {
    ...{ id, state, reasons, recipe, requestedBy: requester.id },
    gate: gate === null ? null : { ...gate, problems: [...gate.problems] },
    lineage: lineage === null ? null : structuredClone(lineage),
    createdAt: created_at.toISOString(),
    endedAt: ended_at?.toISOString() ?? null,
  };
}
