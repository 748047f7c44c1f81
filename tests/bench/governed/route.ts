import { z } from '@hono/zod-openapi';
import { commonResponses, declareRoute, json } from '@somagent/governance';
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
