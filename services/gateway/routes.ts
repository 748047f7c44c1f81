import { createRoute, z } from '@hono/zod-openapi';
import { promptLimit } from '@somagent/orchestrator/contract.ts';

const problem = z
  .object({ type: z.string(), title: z.string(), status: z.int(), detail: z.string(), requestId: z.string() })
  .openapi('Problem');

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

const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});
const body = <Schema extends z.ZodType>(schema: Schema) => ({
  body: { required: true, content: { 'application/json': { schema } } },
});
const failed = (description: string) => ({ description, content: { 'application/problem+json': { schema: problem } } });

/** What every route can answer with. */
const common = {
  400: failed('The request is not valid'),
  401: failed('No token, or one that is not accepted'),
  403: failed('A token without a tenant'),
  429: failed('Too many requests'),
  503: failed('A part of the platform does not answer'),
};
const ofSession = { ...common, 404: failed('No such session of this tenant') };
const stream = { description: 'Events, text/event-stream', content: { 'text/event-stream': { schema: z.string() } } };

/** Says which capability a route asks for; the policy input is made from it. */
const needs = (capability: string) => ({ 'x-capability': capability, security: [{ bearer: [] }] });

/**
 * Every route of the API, once. The server, the OpenAPI document and the list of protected endpoints come from here.
 */
export const routes = {
  createSession: createRoute({
    method: 'post',
    path: '/v1/sessions',
    operationId: 'createSession',
    summary: 'Start a session, with a prompt also its first turn',
    ...needs('session:create'),
    request: {
      headers: idempotency,
      ...body(z.object({ persona: z.string().trim().min(1).max(4000).optional(), prompt: prompt.optional() }).strict()),
    },
    responses: {
      201: json(session.extend({ turn: turn.optional() }), 'The session, and the first turn when there was a prompt'),
      409: failed('The key belongs to a session that is closed'),
      422: failed('The key was used with another prompt'),
      ...common,
    },
  }),
  listSessions: createRoute({
    method: 'get',
    path: '/v1/sessions',
    operationId: 'listSessions',
    summary: 'Sessions of the tenant, newest first',
    ...needs('session:read'),
    request: {
      query: z.object({ limit: z.coerce.number().int().min(1).max(100).default(20), cursor: z.string().optional() }),
    },
    responses: {
      200: json(
        z.object({ sessions: z.array(session), nextCursor: z.string().nullable() }).openapi('SessionPage'),
        'A page; ask again with nextCursor for the next',
      ),
      ...common,
    },
  }),
  getSession: createRoute({
    method: 'get',
    path: '/v1/sessions/{id}',
    operationId: 'getSession',
    summary: 'A session with its turns',
    ...needs('session:read'),
    request: { params: sessionParams },
    responses: { 200: json(session.extend({ turns: z.array(turn) }), 'The session'), ...ofSession },
  }),
  createTurn: createRoute({
    method: 'post',
    path: '/v1/sessions/{id}/turns',
    operationId: 'createTurn',
    summary: 'Ask; the answer comes whole, or token by token with Accept: text/event-stream',
    ...needs('session:turn'),
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
  streamEvents: createRoute({
    method: 'get',
    path: '/v1/sessions/{id}/events',
    operationId: 'streamEvents',
    summary: 'What happens in a session, from its beginning or after Last-Event-ID, until it closes',
    ...needs('session:read'),
    request: {
      params: sessionParams,
      headers: z.object({ 'last-event-id': z.coerce.number().int().min(0).optional() }),
    },
    responses: { 200: stream, ...ofSession },
  }),
  cancelTurn: createRoute({
    method: 'post',
    path: '/v1/sessions/{id}/cancel',
    operationId: 'cancelTurn',
    summary: 'Cancel the running turn, or the one that turnId names',
    ...needs('session:turn'),
    request: { params: sessionParams, query: z.object({ turnId: z.uuid().optional() }) },
    responses: {
      200: json(z.object({ cancelled: z.uuid().nullable() }), 'The turn that was cancelled, null when none ran'),
      409: failed('The session is closed'),
      ...ofSession,
    },
  }),
  closeSession: createRoute({
    method: 'delete',
    path: '/v1/sessions/{id}',
    operationId: 'closeSession',
    summary: 'Close a session; a running turn is cancelled. Closing a closed session changes nothing',
    ...needs('session:close'),
    request: { params: sessionParams },
    responses: { 200: json(session, 'The closed session'), ...ofSession },
  }),
  getOpenApi: createRoute({
    method: 'get',
    path: '/openapi.json',
    operationId: 'getOpenApi',
    summary: 'This API as an OpenAPI 3.1 document',
    ...needs('api:describe'),
    responses: { 200: json(z.record(z.string(), z.unknown()), 'The document'), ...common },
  }),
};

export type Routes = typeof routes;
