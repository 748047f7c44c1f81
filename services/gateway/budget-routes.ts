import { z } from '@hono/zod-openapi';
import { periods, scopes } from '@somagent/budget';
import { body, commonResponses, declareRoute, failed, json } from '@somagent/governance';

const limit = z.int().min(0).max(Number.MAX_SAFE_INTEGER).nullable();
const amounts = z.object({ tokens: z.int(), costMicros: z.int() });

const budget = z
  .object({
    scope: z.enum(scopes),
    id: z.string(),
    period: z.enum(periods),
    tokens: limit,
    costMicros: limit,
    used: amounts,
    reserved: amounts,
    renewsAt: z.iso.datetime().nullable(),
  })
  .openapi('Budget', { description: 'Money in whole millionths of a US dollar; null limits nothing' });

const key = z.object({
  scope: z.enum(scopes),
  id: z
    .string()
    .regex(/^(\*|[A-Za-z0-9][A-Za-z0-9._:-]{0,99})$/)
    .openapi({ description: 'Of the team, persona or session, or * for each without its own; of the tenant its name' }),
  period: z.enum(periods).openapi({ description: 'By UTC; total never renews' }),
});
const path = '/v1/budgets/{scope}/{id}/{period}';

/** Budgets of the caller's tenant. */
export const budgetRoutes = {
  listBudgets: declareRoute({
    method: 'get',
    path: '/v1/budgets',
    operationId: 'listBudgets',
    summary: 'The budgets of the tenant, with what is used and reserved in the present period',
    capability: 'budget:read',
    audit: 'read',
    responses: { 200: json(z.object({ budgets: z.array(budget) }), 'The budgets'), ...commonResponses },
  }),
  putBudget: declareRoute({
    method: 'put',
    path,
    operationId: 'putBudget',
    summary: 'Set a budget: from now on a request that would exceed it is refused before it runs',
    capability: 'budget:write',
    audit: 'admin',
    request: {
      params: key,
      ...body(
        z
          .strictObject({ tokens: limit.default(null), costMicros: limit.default(null) })
          .refine(({ tokens, costMicros }) => tokens !== null || costMicros !== null, {
            error: 'give tokens, costMicros or both: a budget without either limits nothing',
          }),
      ),
    },
    responses: {
      200: json(budget, 'The budget'),
      ...commonResponses,
      404: failed('The scope tenant has no other id than your own tenant'),
    },
  }),
  deleteBudget: declareRoute({
    method: 'delete',
    path,
    operationId: 'deleteBudget',
    summary: 'Remove a budget; removing one that is not there changes nothing',
    capability: 'budget:write',
    audit: 'admin',
    request: { params: key },
    responses: {
      200: json(z.object({ removed: z.boolean() }), 'Whether there was such a budget'),
      ...commonResponses,
      404: failed('The scope tenant has no other id than your own tenant'),
    },
  }),
};
