/** Requests and answers of OpenAI's API, as far as they are understood here. */
import { z } from '@hono/zod-openapi';
import { isDeeperThan } from './json-depth.ts';

const textPart = z.object({ type: z.literal('text', 'only parts of type text are understood'), text: z.string() });
const content = z.union([z.string(), z.array(textPart).min(1)]);
const toolCall = z.object({
  id: z.string().min(1).max(200),
  type: z.literal('function'),
  function: z.object({ name: z.string().min(1).max(64), arguments: z.string() }),
});

const message = z.discriminatedUnion('role', [
  z.object({ role: z.literal('system'), content, name: z.string().optional() }),
  z.object({ role: z.literal('developer'), content, name: z.string().optional() }),
  z.object({ role: z.literal('user'), content, name: z.string().optional() }),
  z.object({ role: z.literal('assistant'), content: content.nullish(), tool_calls: z.array(toolCall).optional() }),
  z.object({ role: z.literal('tool'), content, tool_call_id: z.string().min(1).max(200) }),
]);

const deepest = 64;
const schemaObject = z
  .record(z.string(), z.unknown())
  .refine((schema) => !isDeeperThan(deepest, schema), { error: `a schema has at most ${deepest} levels` });
const tool = z.object({
  type: z.literal('function'),
  function: z.object({
    name: z.string().regex(/^[a-zA-Z0-9_.-]{1,64}$/, 'use 1 to 64 letters, digits or any of _ . -'),
    description: z.string().optional(),
    parameters: schemaObject.optional(),
    strict: z.boolean().nullish(),
  }),
});
const toolChoice = z.union([
  z.enum(['none', 'auto', 'required']),
  z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) }),
]);
const responseFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({
      name: z.string().min(1).max(64),
      description: z.string().optional(),
      schema: schemaObject.optional(),
      strict: z.boolean().nullish(),
    }),
  }),
]);
const most = z.int().min(1).max(1_000_000);

/** A request for an answer. Fields that change nothing here are taken; what would be ignored is refused. */
export const chatRequest = z
  .strictObject({
    model: z.string().min(1).max(128),
    messages: z.array(message).min(1).max(4000),
    tools: z.array(tool).max(128).optional(),
    tool_choice: toolChoice.optional(),
    parallel_tool_calls: z.boolean().optional(),
    response_format: responseFormat.optional(),
    max_tokens: most.nullish(),
    max_completion_tokens: most.nullish(),
    n: z.literal(1, 'only one answer is given: leave n out or set it to 1').nullish(),
    stop: z.union([z.string().min(1), z.array(z.string().min(1)).max(4)]).nullish(),
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    seed: z.int().nullish(),
    frequency_penalty: z.number().min(-2).max(2).nullish(),
    presence_penalty: z.number().min(-2).max(2).nullish(),
    logprobs: z.literal(false, 'probabilities are not given: leave logprobs out').nullish(),
    stream: z.boolean().nullish(),
    stream_options: z
      .object({ include_usage: z.boolean().optional(), include_obfuscation: z.boolean().optional() })
      .nullish(),
    user: z.string().max(512).optional(),
    metadata: z.record(z.string(), z.string()).nullish(),
    store: z.literal(false, 'nothing is stored by this API: leave store out').nullish(),
    service_tier: z.string().nullish(),
    safety_identifier: z.string().optional(),
    prompt_cache_key: z.string().optional(),
    reasoning_effort: z.string().nullish(),
    verbosity: z.string().nullish(),
  })
  .openapi('ChatRequest');

export type ChatBody = z.output<typeof chatRequest>;

/** Texts to embed. */
export const embeddingsRequest = z
  .strictObject({
    model: z.string().min(1).max(128),
    input: z.union([z.string().min(1), z.array(z.string().min(1)).min(1).max(2048)], 'send a text or a list of texts'),
    encoding_format: z.enum(['float', 'base64']).optional(),
    user: z.string().max(512).optional(),
  })
  .openapi('EmbeddingsRequest');

export type EmbeddingsBody = z.output<typeof embeddingsRequest>;

/** Whom a request belongs to, beyond its credential. The persona comes from the credential alone. */
export const attributionHeaders = z.object({
  'x-soma-session': z
    .uuid()
    .optional()
    .openapi({ description: 'Session that it belongs to; you must be able to use it' }),
  'x-soma-team': z.string().min(1).max(100).optional().openapi({
    description: 'Which team of yours it is for, where you have several; without it the first by name',
  }),
  'x-soma-lane': z.enum(['interactive', 'batch']).optional().openapi({ description: 'batch may wait' }),
});

const usage = z
  .object({ prompt_tokens: z.int(), completion_tokens: z.int(), total_tokens: z.int() })
  .openapi('ChatUsage');

/** A whole answer. */
export const chatCompletion = z
  .object({
    id: z.string(),
    object: z.literal('chat.completion'),
    created: z.int(),
    model: z.string(),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({
          role: z.literal('assistant'),
          content: z.string().nullable(),
          refusal: z.null(),
          tool_calls: z.array(toolCall).optional(),
        }),
        logprobs: z.null(),
        finish_reason: z.enum(['stop', 'length', 'tool_calls', 'content_filter']),
      }),
    ),
    usage,
  })
  .openapi('ChatCompletion');

export type ChatCompletion = z.output<typeof chatCompletion>;

export const modelObject = z
  .object({ id: z.string(), object: z.literal('model'), created: z.int(), owned_by: z.string() })
  .openapi('Model');

export const modelList = z.object({ object: z.literal('list'), data: z.array(modelObject) }).openapi('ModelList');

export const embeddingList = z
  .object({
    object: z.literal('list'),
    data: z.array(
      z.object({
        object: z.literal('embedding'),
        index: z.int(),
        embedding: z.union([z.array(z.number()), z.string()]),
      }),
    ),
    model: z.string(),
    usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
  })
  .openapi('EmbeddingList');
