import type { RouteConfig, RouteHandler } from '@hono/zod-openapi';
import { type Turn, type TurnInput, turnEnds } from '@somagent/orchestrator/contract.ts';
import type { Context } from 'hono';
import type { Caller } from './authentication.ts';
import { eventStream, type StreamSources } from './event-stream.ts';
import { decodeCursor, encodeCursor, identifierFor } from './identifiers.ts';
import { Problem } from './problem.ts';
import type { SessionView } from './reader.ts';
import type { Routes } from './routes.ts';
import { type SessionAddress, SessionEnded, type Sessions } from './sessions.ts';

/** What a request carries after the middleware. */
export interface GatewayEnv {
  Variables: { caller: Caller; requestId: string; receivedAt: number };
}

/** What the handlers work with. */
export interface HandlerDependencies extends StreamSources {
  readonly sessions: Sessions;
}

/** A handler for each declared route, no more and no less. */
export type Handlers = {
  readonly [Name in Exclude<keyof Routes, 'getOpenApi'>]: Routes[Name] extends RouteConfig
    ? RouteHandler<Routes[Name], GatewayEnv>
    : never;
};

/** The handlers of the routes. The tenant always comes from the token. */
export function createHandlers(dependencies: HandlerDependencies): Handlers {
  const { reader, sessions } = dependencies;

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
    if (view.status === 'closed') throw new Problem('session-closed', 'start a new session');
    throw new Problem('unavailable', 'the session does not take turns at the moment: try again', {
      'retry-after': '2',
    });
  };

  const orStored = <Result>(call: Promise<Result>, stored: () => Promise<Result>): Promise<Result> =>
    call.catch((error: unknown) => {
      if (error instanceof SessionEnded) return stored();
      throw error;
    });

  return {
    createSession: async (context) => {
      const { persona, prompt } = context.req.valid('json');
      const { tenant, subject } = context.get('caller');
      const key = context.req.valid('header')['idempotency-key'];
      const sessionId = identifierFor(key, 'session', tenant, subject);
      const address = { tenant, sessionId };
      const start = { tenant, sessionId, subject, ...(persona === undefined ? {} : { persona }) };
      if (prompt === undefined) {
        await orStored(sessions.open(start), async () => void (await viewOf(address)));
        return context.json(await viewOf(address), 201);
      }
      const turnInput = turnOf(context, identifierFor(key, 'first-turn', sessionId), prompt);
      const turn = await orStored(sessions.openWithTurn(start, turnInput), () => storedTurn(address, turnInput.turnId));
      requireSamePrompt(turn, prompt);
      return context.json({ ...(await viewOf(address)), turn }, 201);
    },

    listSessions: async (context) => {
      const { limit, cursor } = context.req.valid('query');
      const after = cursor === undefined ? undefined : decodeCursor(cursor);
      if (cursor !== undefined && after === undefined) {
        throw new Problem('invalid-request', 'cursor is not one of ours: take nextCursor of the page before');
      }
      const found = await reader.sessions(context.get('caller').tenant, limit + 1, after);
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
      const turn = await orStored(sessions.turn(address, input), () => storedTurn(address, input.turnId));
      requireSamePrompt(turn, prompt);
      if (turn.status === 'failed') throw new Problem('generation-failed', turn.error ?? 'the generation failed');
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
        throw new Problem('session-closed', 'there is no turn to cancel');
      });
      return context.json(result, 200);
    },

    closeSession: async (context) => {
      const address = addressOf(context.get('caller'), context.req.valid('param'));
      await orStored(sessions.close(address), async () => undefined);
      return context.json(await viewOf(address), 200);
    },
  };
}

const addressOf = ({ tenant }: Caller, { id }: { readonly id: string }): SessionAddress => ({ tenant, sessionId: id });

const turnOf = (context: Context<GatewayEnv>, turnId: string, prompt: string): TurnInput => ({
  turnId,
  prompt,
  receivedAt: context.get('receivedAt'),
});

function requireSamePrompt(turn: Turn, prompt: string): void {
  if (turn.prompt !== prompt) {
    throw new Problem('key-reused', 'Idempotency-Key was sent before with another prompt: use a new key');
  }
}
