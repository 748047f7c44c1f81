import { z } from '@hono/zod-openapi';
import {
  body,
  type Caller,
  commonResponses,
  declareRoute,
  failed,
  json,
  openApiRoute,
  type PathValues,
} from '@somagent/governance';
import { promptLimit } from '@somagent/orchestrator/contract.ts';
import { objectOf } from '@somagent/relations/tuples.ts';
import { budgetRoutes } from './budget-routes.ts';
import { openAiRoutes } from './openai-routes.ts';

const usage = z.object({ promptTokens: z.int(), completionTokens: z.int() }).openapi('Usage');

const timings = z
  .object({
    queue: z.number(),
    firstToken: z.number().nullable(),
    model: z.number(),
    platform: z.number(),
    total: z.number(),
  })
  .openapi('Timings', { description: 'Milliseconds; total = model + platform' });

const turn = z
  .object({
    id: z.uuid(),
    number: z.int(),
    prompt: z.string(),
    answer: z.string(),
    status: z.enum(['running', 'completed', 'cancelled', 'failed']),
    error: z.string().nullable(),
    usage: usage.nullable(),
    timings: timings.nullable(),
  })
  .openapi('Turn');

const session = z
  .object({
    id: z.uuid(),
    workflowId: z.string(),
    status: z.enum(['open', 'closed']),
    closeReason: z.enum(['client', 'idle']).nullable(),
    persona: z.string().nullable(),
    createdAt: z.iso.datetime(),
    closedAt: z.iso.datetime().nullable(),
  })
  .openapi('Session');

const prompt = z.string().trim().min(1).max(promptLimit);
const sessionParams = z.object({ id: z.uuid() });
const idempotency = z.object({
  'idempotency-key': z.string().min(1).max(128).optional().openapi({
    description: 'The same key with the same request gives the same answer, without a second effect',
  }),
});

const ofSession = { ...commonResponses, 404: failed('No such session of this tenant') };
const stream = { description: 'Events, text/event-stream', content: { 'text/event-stream': { schema: z.string() } } };

/** Asks for a relation to the session that the path names, in the caller's tenant: another tenant's can't be named. */
const toSession = (relation: 'can_view' | 'can_use' | 'can_close') => ({
  relation,
  object: ({ id = '' }: PathValues, { tenant }: Caller) => objectOf('session', tenant, id),
});

/** The routes of sessions. */
export const sessionRoutes = {
  createSession: declareRoute({
    method: 'post',
    path: '/v1/sessions',
    operationId: 'createSession',
    summary: 'Start a session, with a prompt also its first turn',
    capability: 'session:create',
    audit: 'write',
    request: {
      headers: idempotency,
      ...body(z.object({ persona: z.string().trim().min(1).max(4000).optional(), prompt: prompt.optional() }).strict()),
    },
    responses: {
      201: json(session.extend({ turn: turn.optional() }), 'The session, and the first turn when there was a prompt'),
      409: failed('The key belongs to a session that is closed'),
      422: failed('The key was used with another prompt'),
      ...commonResponses,
    },
  }),
  listSessions: declareRoute({
    method: 'get',
    path: '/v1/sessions',
    operationId: 'listSessions',
    summary: 'Sessions of the tenant, newest first',
    capability: 'session:read',
    audit: 'read',
    request: {
      query: z.object({ limit: z.coerce.number().int().min(1).max(100).default(20), cursor: z.string().optional() }),
    },
    responses: {
      200: json(
        z.object({ sessions: z.array(session), nextCursor: z.string().nullable() }).openapi('SessionPage'),
        'A page; ask again with nextCursor for the next',
      ),
      ...commonResponses,
    },
  }),
  getSession: declareRoute({
    method: 'get',
    path: '/v1/sessions/{id}',
    operationId: 'getSession',
    summary: 'A session with its turns',
    capability: 'session:read',
    audit: 'read',
    relation: toSession('can_view'),
    request: { params: sessionParams },
    responses: { 200: json(session.extend({ turns: z.array(turn) }), 'The session'), ...ofSession },
  }),
  createTurn: declareRoute({
    method: 'post',
    path: '/v1/sessions/{id}/turns',
    operationId: 'createTurn',
    summary: 'Ask; the answer comes whole, or token by token with Accept: text/event-stream',
    capability: 'session:turn',
    audit: 'write',
    relation: toSession('can_use'),
    request: { params: sessionParams, headers: idempotency, ...body(z.object({ prompt }).strict()) },
    responses: {
      200: {
        description: 'The ended turn, or its events',
        content: { 'application/json': { schema: turn }, 'text/event-stream': { schema: z.string() } },
      },
      409: failed('The session is closed'),
      422: failed('The key was used with another prompt'),
      502: failed('The model did not answer'),
      ...ofSession,
    },
  }),
  streamEvents: declareRoute({
    method: 'get',
    path: '/v1/sessions/{id}/events',
    operationId: 'streamEvents',
    summary: 'What happens in a session, from its beginning or after Last-Event-ID, until it closes',
    capability: 'session:read',
    audit: 'read',
    relation: toSession('can_view'),
    request: {
      params: sessionParams,
      headers: z.object({ 'last-event-id': z.coerce.number().int().min(0).optional() }),
    },
    responses: { 200: stream, ...ofSession },
  }),
  cancelTurn: declareRoute({
    method: 'post',
    path: '/v1/sessions/{id}/cancel',
    operationId: 'cancelTurn',
    summary: 'Cancel the running turn, or the one that turnId names',
    capability: 'session:turn',
    audit: 'write',
    relation: toSession('can_use'),
    request: { params: sessionParams, query: z.object({ turnId: z.uuid().optional() }) },
    responses: {
      200: json(z.object({ cancelled: z.uuid().nullable() }), 'The turn that was cancelled, null when none ran'),
      409: failed('The session is closed'),
      ...ofSession,
    },
  }),
  closeSession: declareRoute({
    method: 'delete',
    path: '/v1/sessions/{id}',
    operationId: 'closeSession',
    summary: 'Close a session; a running turn is cancelled. Closing a closed session changes nothing',
    capability: 'session:close',
    audit: 'write',
    relation: toSession('can_close'),
    request: { params: sessionParams },
    responses: { 200: json(session, 'The closed session'), ...ofSession },
  }),
};

/**
 * Every route of the API, once. The server, the OpenAPI document and the list of protected endpoints come from here.
 */
export const routes = { ...sessionRoutes, ...openAiRoutes, ...budgetRoutes, getOpenApi: openApiRoute };

export type Routes = typeof routes;
