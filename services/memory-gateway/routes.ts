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
import { objectOf } from '@somagent/relations/tuples.ts';
import { memoryKinds } from './database.ts';

/** Longest text of a memory, characters. */
export const textLimit = 8000;
/** Longest question, characters. */
export const queryLimit = 2000;

const name = z.string().trim().min(1).max(200);
const kind = z.enum(memoryKinds);

const onBehalf = z
  .object({ tenant: name, subject: name, persona: name.optional(), sessionId: z.uuid().optional() })
  .strict()
  .openapi('OnBehalf', { description: 'For whom a workload of the platform asks; nobody else may say this' });

const filter = z
  .object({
    owner: name.optional().openapi({ description: 'Whose; another than oneself only for administrators' }),
    team: name.optional(),
    persona: name.optional(),
    sessionId: z.uuid().optional(),
    kinds: z.array(kind).min(1).max(memoryKinds.length).optional(),
    since: z.iso.datetime().optional(),
    until: z.iso.datetime().optional(),
  })
  .strict()
  .openapi('MemoryFilter');

const memory = z
  .object({
    id: z.uuid(),
    owner: z.string(),
    team: z.string().nullable(),
    persona: z.string().nullable(),
    sessionId: z.uuid().nullable(),
    kind,
    text: z.string(),
    importance: z.number(),
    seen: z.int().openapi({ description: 'How often the same was stored' }),
    createdAt: z.iso.datetime(),
    expiresAt: z.iso.datetime().nullable(),
  })
  .openapi('Memory');

const stored = z.object({ memory, created: z.boolean() }).openapi('StoredMemory');

const recalled = z
  .object({
    memories: z.array(
      memory
        .extend({
          score: z.number(),
          similarity: z.number().nullable(),
          rank: z.object({ vectors: z.int().nullable(), keywords: z.int().nullable() }),
        })
        .openapi('RecalledMemory'),
    ),
    degraded: z
      .object({ without: z.literal('vectors'), reason: z.string() })
      .nullable()
      .openapi({ description: 'Why only words were searched; null where vectors were searched too' }),
    timings: z
      .object({
        embed: z.number().nullable(),
        vectors: z.number().nullable(),
        keywords: z.number(),
        total: z.number(),
      })
      .openapi({ description: 'Milliseconds' }),
  })
  .openapi('Recall');

const proof = z
  .object({
    checkedAt: z.iso.datetime(),
    postgres: z.object({ memories: z.int(), inScope: z.int(), indexTasks: z.int() }),
    vectors: z.union([
      z.object({ state: z.enum(['absent', 'present']), points: z.record(z.string(), z.int()) }),
      z.object({ state: z.literal('pending'), reason: z.string() }),
    ]),
    snapshots: z.object({ deleted: z.int(), left: z.int() }).nullable(),
    outbox: z.object({ withText: z.int() }),
  })
  .openapi('ForgetProof', { description: 'What is left in each store, counted after the deletion' });

const forgotten = z
  .object({ forgotten: z.int(), proven: z.boolean(), proof })
  .openapi('Forgotten', { description: 'proven is true when nothing is left in any store' });

const summary = z
  .object({ memory, used: z.int(), of: z.int(), model: z.string() })
  .openapi('MemorySummary', { description: 'The stored summary, of how many of how many memories, by which model' });

const memoryParams = z.object({ id: z.uuid() });

const toMemory = (relation: 'can_view' | 'can_forget') => ({
  relation,
  object: ({ id = '' }: PathValues, { tenant }: Caller) => objectOf('memory', tenant, id),
});

/** Describes an answer of lines of JSON. The type is wider than its value: for a literal, only JSON could be sent. */
const lines = (description: string) => {
  const type: string = 'application/x-ndjson';
  return { description, content: { [type]: { schema: z.string() } } };
};

const missing = { 404: failed('There is no such memory, session, persona or team here') };

/** Every route of the memory gateway. */
export const routes = {
  storeMemory: declareRoute({
    method: 'post',
    path: '/v1/memories',
    operationId: 'storeMemory',
    summary: 'Remember something; the same again in the same scope is the same memory',
    capability: 'memory:write',
    audit: 'write',
    request: body(
      z
        .object({
          text: z.string().trim().min(1).max(textLimit),
          kind: kind.default('episodic'),
          importance: z.number().min(0).max(1).default(0.5),
          team: name.optional(),
          persona: name.optional(),
          sessionId: z.uuid().optional(),
          ttlSeconds: z
            .int()
            .min(1)
            .max(10 * 366 * 86_400)
            .optional(),
          source: name.optional().openapi({
            description:
              'What it comes from, such as the id of a turn: a repetition with the same source changes nothing',
          }),
          onBehalf: onBehalf.optional(),
        })
        .strict(),
    ),
    responses: {
      200: json(stored, 'It was known already'),
      201: json(stored, 'It is remembered'),
      410: failed('It was remembered from this source, and forgotten'),
      ...missing,
      ...commonResponses,
    },
  }),
  recallMemories: declareRoute({
    method: 'post',
    path: '/v1/memories/recall',
    operationId: 'recallMemories',
    summary: 'Find memories by meaning and by words',
    capability: 'memory:read',
    audit: 'read',
    request: body(
      z
        .object({
          query: z.string().trim().min(1).max(queryLimit),
          limit: z.int().min(1).max(100).default(10),
          filter: filter.default({}),
          deadlineMs: z.int().min(10).max(5000).optional(),
          onBehalf: onBehalf.optional(),
        })
        .strict(),
    ),
    responses: { 200: json(recalled, 'What was found, best first'), ...missing, ...commonResponses },
  }),
  // Before the route with an id: the first that fits a path answers.
  exportMemories: declareRoute({
    method: 'get',
    path: '/v1/memories/export',
    operationId: 'exportMemories',
    summary: 'All memories of the tenant or of one subject, line by line',
    capability: 'memory:export',
    audit: 'admin',
    request: { query: z.object({ owner: name.optional(), sessionId: z.uuid().optional() }) },
    responses: {
      200: lines('Lines `export`, `memory` and `end`; without the last one the answer was cut short'),
      ...commonResponses,
    },
  }),
  getMemory: declareRoute({
    method: 'get',
    path: '/v1/memories/{id}',
    operationId: 'getMemory',
    summary: 'One memory',
    capability: 'memory:read',
    audit: 'read',
    relation: toMemory('can_view'),
    request: { params: memoryParams },
    responses: { 200: json(memory, 'The memory'), ...missing, ...commonResponses },
  }),
  forgetMemory: declareRoute({
    method: 'delete',
    path: '/v1/memories/{id}',
    operationId: 'forgetMemory',
    summary: 'Forget one memory, for good and in every store',
    capability: 'memory:forget',
    audit: 'write',
    relation: toMemory('can_forget'),
    request: { params: memoryParams },
    responses: { 200: json(forgotten, 'It is gone, with the proof'), ...missing, ...commonResponses },
  }),
  forgetMemories: declareRoute({
    method: 'post',
    path: '/v1/memories/forget',
    operationId: 'forgetMemories',
    summary: 'Forget all memories of a filter, for good and in every store',
    capability: 'memory:forget',
    audit: 'write',
    request: body(
      z
        .object({
          filter: filter.default({}),
          all: z
            .boolean()
            .default(false)
            .openapi({ description: 'Of the whole tenant, not only of oneself: for its administrators' }),
        })
        .strict(),
    ),
    responses: { 200: json(forgotten, 'They are gone, with the proof'), ...missing, ...commonResponses },
  }),
  summarizeMemories: declareRoute({
    method: 'post',
    path: '/v1/memories/summarize',
    operationId: 'summarizeMemories',
    summary: 'Have the model summarize the newest memories of a filter, and remember the summary',
    capability: 'memory:write',
    audit: 'write',
    request: body(z.object({ filter: filter.default({}), onBehalf: onBehalf.optional() }).strict()),
    responses: {
      201: json(summary, 'The summary, as it is remembered'),
      409: failed('There is nothing to summarize'),
      502: failed('The model gave no summary'),
      ...missing,
      ...commonResponses,
    },
  }),
  getOpenApi: openApiRoute,
};

export type Routes = typeof routes;
