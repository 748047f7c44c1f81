import { z } from '@hono/zod-openapi';
import { body, commonResponses, declareRoute, json } from '@somagent/governance';
import { objectOf } from '@somagent/relations';

/** The route of the benchmark: declared as the gateway's getSession is. */
export const readSession = declareRoute({
  method: 'get',
  path: '/v1/sessions/{id}',
  operationId: 'readSession',
  capability: 'session:read',
  audit: 'read',
  relation: { relation: 'can_view', object: ({ id = '' }, { tenant }) => objectOf('session', tenant, id) },
  request: { params: z.object({ id: z.uuid() }) },
  responses: { 200: json(z.object({ id: z.uuid() }), 'The session'), ...commonResponses },
});

/** The route beside LiteLLM's: what comes is handed to the model, its answer handed back. */
export const chat = declareRoute({
  method: 'post',
  path: '/v1/chat/completions',
  operationId: 'chat',
  capability: 'session:turn',
  audit: 'write',
  request: body(
    z.object({
      model: z.string(),
      max_tokens: z.number().int().positive(),
      messages: z.array(z.object({ role: z.enum(['system', 'user', 'assistant']), content: z.string() })),
    }),
  ),
  responses: { 200: json(z.record(z.string(), z.unknown()), 'The answer of the model'), ...commonResponses },
});
