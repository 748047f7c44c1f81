import { z } from '@hono/zod-openapi';
import { commonResponses, declareRoute, json, openApiRoute } from '@somagent/governance';
import { groupings } from './views.ts';

const moment = z.iso.datetime({ offset: true });
const share = z.number().nullable().openapi({ description: 'From 0 to 1; null where nothing was counted' });

/** The time range, how it is cut, and whose figures: an operator may name a tenant, others see their own whatever they name. */
const range = {
  from: moment.optional().openapi({ description: '@default 24 hours before `to`' }),
  to: moment.optional().openapi({ description: '@default now' }),
  tenant: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/)
    .optional()
    .openapi({ description: 'For an operator: only this tenant. Refused to others' }),
};
const step = z.coerce
  .number()
  .int()
  .min(60)
  .max(7 * 86_400)
  .default(3600)
  .openapi({ description: 'Seconds of one bucket' });

const query = <Names extends readonly [string, ...string[]]>(names: Names) =>
  z.object({ ...range, step, by: z.enum(names).optional().openapi({ description: 'One row per value of this' }) });

const bucket = { time: z.string().openapi({ description: 'Beginning of the bucket' }), group: z.string() };
const count = z.int().min(0);
const quantiles = z
  .object({ p50: z.number().nullable(), p95: z.number().nullable(), p99: z.number().nullable() })
  .openapi('Quantiles', { description: 'Milliseconds; null where nothing was measured' });

const report = <Shape extends z.ZodRawShape>(name: string, shape: Shape) =>
  json(z.object({ rows: z.array(z.object({ ...bucket, ...shape })) }).openapi(name), 'Buckets in their order');

const governed = { method: 'get', capability: 'analytics:read', audit: 'read' } as const;

/** Every route of analytics, once. */
export const routes = {
  getLatencies: declareRoute({
    ...governed,
    path: '/v1/analytics/latencies',
    operationId: 'getLatencies',
    summary: 'Latencies of turns, split into platform, queue, first token and model',
    request: { query: query(groupings.latencies).extend({ slm: z.enum(['true', 'false']).default('false') }) },
    responses: {
      200: report('Latencies', {
        turns: count,
        platform: quantiles,
        queue: quantiles,
        firstToken: quantiles,
        model: quantiles,
        total: quantiles,
      }),
      ...commonResponses,
    },
  }),
  getUsage: declareRoute({
    ...governed,
    path: '/v1/analytics/usage',
    operationId: 'getUsage',
    summary: 'Tokens that were used',
    request: { query: query(groupings.consumption) },
    responses: {
      200: report('TokenUsage', { requests: count, promptTokens: count, completionTokens: count }),
      ...commonResponses,
    },
  }),
  getCost: declareRoute({
    ...governed,
    path: '/v1/analytics/cost',
    operationId: 'getCost',
    summary: 'What models have cost, in millionths of a US dollar',
    request: { query: query(groupings.consumption) },
    responses: { 200: report('Cost', { requests: count, costMicros: count }), ...commonResponses },
  }),
  getVerdictStatistics: declareRoute({
    ...governed,
    path: '/v1/analytics/verdicts',
    operationId: 'getVerdictStatistics',
    summary: 'How often requests were allowed and denied',
    request: { query: query(groupings.verdicts) },
    responses: {
      200: report('VerdictStatistics', {
        allowed: count,
        denied: count,
        latencyMs: quantiles.openapi({ description: 'Of the decision' }),
      }),
      ...commonResponses,
    },
  }),
  getErrors: declareRoute({
    ...governed,
    path: '/v1/analytics/errors',
    operationId: 'getErrors',
    summary: 'Turns that failed, requests that ended with 5xx, models that failed',
    request: { query: query(groupings.errors) },
    responses: { 200: report('Errors', { errors: count }), ...commonResponses },
  }),
  getSuccess: declareRoute({
    ...governed,
    path: '/v1/analytics/success',
    operationId: 'getSuccess',
    summary: 'The share of turns that were completed, of those that completed or failed',
    request: { query: z.object({ ...range, step }) },
    responses: {
      200: report('Success', { completed: count, failed: count, cancelled: count, rate: share }),
      ...commonResponses,
    },
  }),
  getForecast: declareRoute({
    ...governed,
    path: '/v1/analytics/forecast',
    operationId: 'getForecast',
    summary: 'Tokens that a tenant is expected to use in the next hours, and how good that forecast was lately',
    request: {
      query: z.object({ tenant: range.tenant, hours: z.coerce.number().int().min(1).max(48).default(48) }),
    },
    responses: {
      200: json(
        z
          .object({
            rows: z.array(
              z.object({
                ...bucket,
                expected: z.number(),
                low: z.number(),
                high: z.number(),
                accuracy: share.openapi({ description: '1 − WAPE of its back-test; null where there was none' }),
              }),
            ),
          })
          .openapi('Forecast'),
        'One row per tenant and hour, bounds of 90 %',
      ),
      ...commonResponses,
    },
  }),
  getAnomalies: declareRoute({
    ...governed,
    path: '/v1/analytics/anomalies',
    operationId: 'getAnomalies',
    summary: 'Hours in which a tenant used far more or fewer tokens than expected',
    request: { query: z.object(range) },
    responses: {
      200: json(
        z
          .object({
            rows: z.array(
              z.object({
                ...bucket,
                tokens: z.number(),
                expected: z.number(),
                score: z.number().openapi({ description: 'Standard deviations; negative: fewer than expected' }),
              }),
            ),
          })
          .openapi('Anomalies'),
        'Oldest first; `group` is the tenant',
      ),
      ...commonResponses,
    },
  }),
  getOpenApi: openApiRoute,
};

/** The declared routes. */
export type Routes = typeof routes;
