import { z } from '@hono/zod-openapi';
import { body, commonResponses, declareRoute, failed, json, openApiRoute } from '@somagent/governance';
import { measuresSchema } from './gate.ts';
import { recipeSchema } from './recipe.ts';

const reason = z.string().trim().min(1).max(500);
const sessionIds = z.array(z.uuid()).min(1).max(100);
const hash = z.string().openapi({ description: 'SHA-256, hexadecimal' });

const approval = z
  .object({ sessionId: z.uuid(), approvedBy: z.string(), approvedAt: z.iso.datetime(), reason: z.string() })
  .openapi('TrainingApproval');

const gate = z
  .object({ passed: z.boolean(), problems: z.array(z.string()), candidate: measuresSchema, serving: measuresSchema })
  .openapi('GateVerdict');

const lineage = z
  .object({
    lineage: z.object({
      version: z.literal(1),
      tenant: z.string(),
      runId: z.uuid(),
      datasetHash: hash,
      turns: z.object({ train: z.int(), heldOut: z.int() }),
      codeHash: hash,
      corpusHash: hash,
      baseModelHash: hash,
      recipe: z.record(z.string(), z.number()),
      metrics: z.object({ candidate: measuresSchema, serving: measuresSchema }),
      modelHash: hash,
    }),
    signature: z.string().openapi({ description: 'Ed25519 over the canonical JSON of `lineage`, base64' }),
  })
  .openapi('SignedLineage');

const run = z
  .object({
    id: z.uuid(),
    state: z.enum(['queued', 'running', 'passed', 'refused', 'stopped', 'failed']),
    reasons: z.array(z.string()).openapi({ description: 'Why it ended as it did' }),
    requestedBy: z.string(),
    recipe: recipeSchema,
    gate: gate.nullable(),
    lineage: lineage.nullable(),
    createdAt: z.iso.datetime(),
    endedAt: z.iso.datetime().nullable(),
  })
  .openapi('TrainingRun');

const serving = z
  .object({
    modelHash: hash.nullable().openapi({ description: 'Null: the bundled model' }),
    runId: z.uuid().nullable(),
    promotedBy: z.string().nullable(),
    promotedAt: z.iso.datetime().nullable(),
  })
  .openapi('ServingModel');

const changed = z.object({ sessionIds: z.array(z.uuid()).openapi({ description: 'Those that were not so before' }) });
const absent = (what: string) => ({ ...commonResponses, 404: failed(what) });
const ofRun = z.object({ id: z.uuid() });
const limit = z.coerce.number().int().min(1).max(500).default(100);

/** Every route of the training service, once. */
export const routes = {
  listApprovals: declareRoute({
    method: 'get',
    path: '/v1/training/approvals',
    operationId: 'listApprovals',
    summary: 'Sessions whose turns may be trained on, and who approved them',
    capability: 'training:read',
    audit: 'read',
    request: { query: z.object({ limit }) },
    responses: { 200: json(z.object({ approvals: z.array(approval) }), 'The approvals'), ...commonResponses },
  }),
  approveSessions: declareRoute({
    method: 'post',
    path: '/v1/training/approvals',
    operationId: 'approveSessions',
    summary: 'Approve sessions for training; people only, while training is unlocked',
    capability: 'training:export',
    audit: 'admin',
    request: body(z.strictObject({ sessionIds, reason })),
    responses: { 200: json(changed, 'What was approved'), ...absent('No such session') },
  }),
  withdrawApprovals: declareRoute({
    method: 'post',
    path: '/v1/training/approvals/withdraw',
    operationId: 'withdrawApprovals',
    summary: 'Take approvals back: runs that begin from now on leave these sessions out',
    capability: 'training:propose',
    audit: 'admin',
    request: body(z.strictObject({ sessionIds, reason })),
    responses: { 200: json(changed, 'What was withdrawn'), ...commonResponses },
  }),
  createRun: declareRoute({
    method: 'post',
    path: '/v1/training/runs',
    operationId: 'createRun',
    summary: 'Tune the serving model on the approved sessions; it ends at once when training is locked',
    capability: 'training:run',
    audit: 'admin',
    request: body(recipeSchema),
    responses: { 202: json(run, 'The run, queued'), ...commonResponses, 409: failed('No data, or a run is open') },
  }),
  listRuns: declareRoute({
    method: 'get',
    path: '/v1/training/runs',
    operationId: 'listRuns',
    summary: 'The newest runs of the tenant',
    capability: 'training:read',
    audit: 'none',
    request: { query: z.object({ limit }) },
    responses: { 200: json(z.object({ runs: z.array(run) }), 'Newest first'), ...commonResponses },
  }),
  getRun: declareRoute({
    method: 'get',
    path: '/v1/training/runs/{id}',
    operationId: 'getRun',
    summary: 'A run with the figures of the gate and the signed lineage of its model',
    capability: 'training:read',
    audit: 'none',
    request: { params: ofRun },
    responses: { 200: json(run, 'The run'), ...absent('No such run') },
  }),
  promoteRun: declareRoute({
    method: 'post',
    path: '/v1/training/runs/{id}/promote',
    operationId: 'promoteRun',
    summary: 'Let the model of a run that passed the gate serve; people only',
    capability: 'model:promote',
    audit: 'admin',
    request: { params: ofRun, ...body(z.strictObject({ reason })) },
    responses: { 200: json(serving, 'What serves now'), ...absent('No such run'), 409: failed('It may not serve') },
  }),
  getServingModel: declareRoute({
    method: 'get',
    path: '/v1/training/serving',
    operationId: 'getServingModel',
    summary: 'Which model serves the tenant, and who said so',
    capability: 'training:read',
    audit: 'none',
    responses: { 200: json(serving, 'The model'), ...commonResponses },
  }),
  getOpenApi: openApiRoute,
};

/** The declared routes. */
export type Routes = typeof routes;
