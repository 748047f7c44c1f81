import { z } from '@hono/zod-openapi';
import { body, declareRoute, json } from '@somagent/governance';
import { openAiResponses, showOpenAiProblem } from './openai-problems.ts';
import {
  attributionHeaders,
  chatCompletion,
  chatRequest,
  embeddingList,
  embeddingsRequest,
  modelList,
  modelObject,
} from './openai-schema.ts';

/** A conversation of an agent is longer than what other requests say. */
const bodyLimit = 1024 * 1024;

const common = { showProblem: showOpenAiProblem, bodyLimit } as const;

/**
 * OpenAI's API, governed like everything else: an agent that speaks it changes its base address and its key.
 * Source: https://platform.openai.com/docs/api-reference
 */
export const openAiRoutes = {
  createChatCompletion: declareRoute({
    ...common,
    method: 'post',
    path: '/v1/chat/completions',
    operationId: 'createChatCompletion',
    summary: 'An answer of a model, whole or token by token; refused before it runs where a budget has no room',
    capability: 'model:chat',
    audit: 'write',
    request: { headers: attributionHeaders, ...body(chatRequest) },
    responses: {
      200: {
        description: 'The answer, or its pieces as events',
        content: { 'application/json': { schema: chatCompletion }, 'text/event-stream': { schema: z.string() } },
      },
      ...openAiResponses,
    },
  }),
  createEmbeddings: declareRoute({
    ...common,
    method: 'post',
    path: '/v1/embeddings',
    operationId: 'createEmbeddings',
    summary: 'Vectors of texts',
    capability: 'model:embed',
    audit: 'write',
    request: { headers: attributionHeaders, ...body(embeddingsRequest) },
    responses: { 200: json(embeddingList, 'The vectors, in the order of the texts'), ...openAiResponses },
  }),
  listModels: declareRoute({
    ...common,
    method: 'get',
    path: '/v1/models',
    operationId: 'listModels',
    summary: 'The models that can be asked',
    capability: 'model:read',
    audit: 'none',
    responses: { 200: json(modelList, 'The models'), ...openAiResponses },
  }),
  getModel: declareRoute({
    ...common,
    method: 'get',
    path: '/v1/models/{id}',
    operationId: 'getModel',
    summary: 'One model',
    capability: 'model:read',
    audit: 'none',
    request: { params: z.object({ id: z.string().min(1).max(128) }) },
    responses: { 200: json(modelObject, 'The model'), ...openAiResponses },
  }),
};
