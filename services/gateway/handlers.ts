import { type Caller, type GovernedEnv, type Handlers, Problem } from '@somagent/governance';
import { type Requester, type Turn, type TurnInput, turnEnds } from '@somagent/orchestrator/contract.ts';
import { type RelationChecker, tenantObject } from '@somagent/relations';
import type { Context } from 'hono';
import { eventStream, type StreamSources } from './event-stream.ts';
import { decodeCursor, encodeCursor, identifierFor } from './identifiers.ts';
import { generationFailed, keyReused, sessionClosed } from './problems.ts';
import type { SessionView } from './reader.ts';
import type { sessionRoutes } from './routes.ts';
import { type SessionAddress, SessionEnded, type Sessions } from './sessions.ts';

/** What the handlers work with. */
export interface HandlerDependencies extends StreamSources {
  readonly sessions: Sessions;
  readonly relations: Pick<RelationChecker, 'check'>;
}

type SessionRoutes = typeof sessionRoutes;

/** The handlers of sessions. The tenant always comes from the token. */
export function createHandlers(dependencies: HandlerDependencies): Pick<Handlers<SessionRoutes>, keyof SessionRoutes> {
  const { reader, sessions, relations, hub } = dependencies;

  const viewOf = async ({ tenant, sessionId }: SessionAddress): Promise<SessionView> => {
    const view = await reader.session(tenant, sessionId);
    if (view === undefined) throw new Problem('not-found', `session ${sessionId} does not exist`);
    return view;
  };

  /** The turn of an earlier request with the same key, once the workflow is gone. */
  const storedTurn = async (address: SessionAddress, turnId: string): Promise<Turn> => {
    const view = await viewOf(address);
    const turn = await reader.turn(address.tenant, address.sessionId, turnId);
    if (turn !== undefined) return turn;
    if (view.status === 'closed') throw new Problem(sessionClosed, 'start a new session');
    throw new Problem('unavailable', 'the session does not take turns at the moment: try again', {
      'retry-after': '2',
    });
  };

  /** The turn as soon as its end is stored: its workflow hears of it, and says so, some steps later. */
  const soonest = async (address: SessionAddress, turnId: string, asked: Promise<Turn>): Promise<Turn> => {
    const { tenant, sessionId } = address;
    const answered = new AbortController();
    const stored = async () => {
      await hub.ended({ tenant, sessionId, turnId }, answered.signal);
      const turn = answered.signal.aborted ? undefined : await reader.turn(tenant, sessionId, turnId);
      return turn === undefined || turn.status === 'running' ? asked : turn;
    };
    try {
      return await Promise.race([asked, stored().catch(() => asked)]);
    } finally {
      answered.abort();
    }
  };

  const orStored = <Result>(call: Promise<Result>, stored: () => Promise<Result>): Promise<Result> =>
    call.catch((error: unknown) => {
      if (error instanceof SessionEnded) return stored();
      throw error;
    });

  return {
    createSession: async (context) => {
      const { persona, prompt } = context.req.valid('json');
      const { tenant, subject, teams } = context.get('caller');
      const key = context.req.valid('header')['idempotency-key'];
      const sessionId = identifierFor(key, 'session', tenant, subject);
      const address = { tenant, sessionId };
      const start = {
        tenant,
        sessionId,
        subject,
        teams,
        by: requesterOf(context),
        ...(persona === undefined ? {} : { persona }),
      };
      if (prompt === undefined) {
        await orStored(sessions.open(start), async () => void (await viewOf(address)));
        return context.json(await viewOf(address), 201);
      }
      const turnInput = turnOf(context, identifierFor(key, 'first-turn', sessionId), prompt);
      const asked = soonest(address, turnInput.turnId, sessions.openWithTurn(start, turnInput));
      const turn = await orStored(asked, () => storedTurn(address, turnInput.turnId));
      requireSamePrompt(turn, prompt);
      return context.json({ ...(await viewOf(address)), turn }, 201);
    },

    listSessions: async (context) => {
      const { limit, cursor } = context.req.valid('query');
      const after = cursor === undefined ? undefined : decodeCursor(cursor);
      if (cursor !== undefined && after === undefined) {
        throw new Problem('invalid-request', 'cursor is not one of ours: take nextCursor of the page before');
      }
      const caller = context.get('caller');
      // The same people as by `can_view` of a session: its owner and team, and whoever may look at the whole tenant.
      const seesAll = await relations.check(caller, 'can_audit', tenantObject(caller.tenant), { use: 'read' });
      const found = await reader.sessions(caller.tenant, seesAll.held ? null : caller, limit + 1, after);
      const page = found.slice(0, limit);
      const last = page.at(-1);
      const more = found.length > limit && last !== undefined;
      const nextCursor = more ? encodeCursor({ createdAt: new Date(last.createdAt), id: last.id }) : null;
      return context.json({ sessions: page, nextCursor }, 200);
    },

    getSession: async (context) => {
      const address = addressOf(context.get('caller'), context.req.valid('param'));
      const [view, turns] = await Promise.all([viewOf(address), reader.turns(address.tenant, address.sessionId)]);
      return context.json({ ...view, turns }, 200);
    },

    createTurn: async (context) => {
      const address = addressOf(context.get('caller'), context.req.valid('param'));
      const { prompt } = context.req.valid('json');
      const key = context.req.valid('header')['idempotency-key'];
      const input = turnOf(context, identifierFor(key, 'turn', address.sessionId), prompt);
      if (context.req.header('accept')?.includes('text/event-stream')) {
        await orStored<unknown>(sessions.startTurn(address, input), async () =>
          requireSamePrompt(await storedTurn(address, input.turnId), prompt),
        );
        return eventStream(context, dependencies, { ...address, after: 0, turnId: input.turnId, until: turnEnds });
      }
      const asked = soonest(address, input.turnId, sessions.turn(address, input));
      const turn = await orStored(asked, () => storedTurn(address, input.turnId));
      requireSamePrompt(turn, prompt);
      if (turn.status === 'failed') throw new Problem(generationFailed, turn.error ?? 'the generation failed');
      return context.json(turn, 200);
    },

    streamEvents: async (context) => {
      const address = addressOf(context.get('caller'), context.req.valid('param'));
      const { status } = await viewOf(address);
      const after = context.req.valid('header')['last-event-id'] ?? 0;
      return eventStream(context, dependencies, {
        ...address,
        after,
        until: ['session.closed'],
        complete: status === 'closed',
      });
    },

    cancelTurn: async (context) => {
      const address = addressOf(context.get('caller'), context.req.valid('param'));
      const { turnId } = context.req.valid('query');
      const result = await orStored(sessions.cancelTurn(address, turnId), async () => {
        await viewOf(address);
        throw new Problem(sessionClosed, 'there is no turn to cancel');
      });
      return context.json(result, 200);
    },

    closeSession: async (context) => {
      const address = addressOf(context.get('caller'), context.req.valid('param'));
      await orStored(sessions.close(address, requesterOf(context)), async () => undefined);
      return context.json(await viewOf(address), 200);
    },
  };
}

const addressOf = ({ tenant }: Caller, { id }: { readonly id: string }): SessionAddress => ({ tenant, sessionId: id });

const turnOf = (context: Context<GovernedEnv>, turnId: string, prompt: string): TurnInput => ({
  turnId,
  prompt,
  receivedAt: context.get('receivedAt'),
  by: requesterOf(context),
});

/** Who asks, as events say it. */
function requesterOf(context: Context<GovernedEnv>): Requester {
  const { kind, subject: id, client } = context.get('caller');
  return { actor: { kind, id, client }, requestId: context.get('requestId') };
}

function requireSamePrompt(turn: Turn, prompt: string): void {
  if (turn.prompt !== prompt) {
    throw new Problem(keyReused, 'Idempotency-Key was sent before with another prompt: use a new key');
  }
}
