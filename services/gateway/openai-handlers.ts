import { type Caller, type GovernedEnv, type Handlers, Problem, type RelationChecker } from '@somagent/governance';
import type { Logger } from '@somagent/kit';
import type { ChatChunk, ChatRequest, Lane, ModelDescription, Models, ToolCall } from '@somagent/models';
import type { Context } from 'hono';
import { type Attribution, type AttributionHeaders, attribute } from './attribution.ts';
import { type Admitted, answer, embed, type ModelRuns } from './model-run.ts';
import { modelUnknown } from './openai-problems.ts';
import type { openAiRoutes } from './openai-routes.ts';
import type { ChatBody, ChatCompletion } from './openai-schema.ts';
import { type AnswerHead, streamAnswer, usageOf } from './openai-stream.ts';
import type { ToolPolicy } from './tool-policy.ts';

/** What the handlers of OpenAI's API work with. */
export interface OpenAiDependencies extends ModelRuns {
  readonly tools: ToolPolicy;
  readonly relations: RelationChecker;
  readonly log: Logger;
}

type OpenAiRoutes = typeof openAiRoutes;

/** The handlers of OpenAI's API. Whose request it is comes from the credential; team and session are checked. */
export function createOpenAiHandlers(
  dependencies: OpenAiDependencies,
): Pick<Handlers<OpenAiRoutes>, keyof OpenAiRoutes> {
  const { models, relations, tools, log } = dependencies;

  return {
    createChatCompletion: async (context) => {
      const body = context.req.valid('json');
      const headers = context.req.valid('header');
      const admitted = await admit(context, body.model, 'chat', headers);
      requireTools(context, tools, body, admitted);
      const request = chatRequestOf(body, admitted);
      const gone = new AbortController();
      const left = AbortSignal.any([gone.signal, context.req.raw.signal]);
      const chunks = answer(dependencies, admitted, request, left);
      const head = { id: `chatcmpl-${admitted.requestId}`, created: secondsNow(), model: body.model };
      if (!body.stream) return context.json(await wholeAnswer(head, chunks), 200);
      const { value: first, done } = await chunks.next();
      if (done) throw new Problem('internal', 'the model gave no answer');
      const withUsage = body.stream_options?.include_usage === true;
      return streamAnswer(context, { ...head, first, rest: chunks, withUsage, leave: () => gone.abort(), log });
    },

    createEmbeddings: async (context) => {
      const { model, input, encoding_format: format } = context.req.valid('json');
      const admitted = await admit(context, model, 'embedding', context.req.valid('header'));
      const texts = typeof input === 'string' ? [input] : input;
      const { vectors, promptTokens } = await embed(dependencies, admitted, texts, context.req.raw.signal);
      const data = vectors.map((vector, index) => ({
        object: 'embedding' as const,
        index,
        embedding: format === 'base64' ? base64Of(vector) : [...vector],
      }));
      const usage = { prompt_tokens: promptTokens, total_tokens: promptTokens };
      return context.json({ object: 'list' as const, data, model, usage }, 200);
    },

    listModels: (context) => context.json({ object: 'list' as const, data: models.list.map(modelOf) }, 200),

    getModel: (context) => context.json(modelOf(requireModel(models, context.req.valid('param').id)), 200),
  };

  async function admit(
    context: Context<GovernedEnv>,
    name: string,
    kind: ModelDescription['kind'],
    headers: AttributionHeaders & { readonly 'x-soma-lane'?: Lane | undefined },
  ): Promise<Admitted> {
    const { requestId, startedAt } = context.get('exchange');
    const caller: Caller = context.get('caller');
    requireModel(models, name, kind);
    const attribution: Attribution = await attribute(caller, headers, relations);
    const lane = headers['x-soma-lane'] ?? 'interactive';
    return { ...attribution, requestId, startedAt, caller, model: name, lane };
  }
}

function requireModel(models: Models, name: string, kind?: ModelDescription['kind']): ModelDescription {
  const found = models.list.find((model) => model.name === name);
  if (found !== undefined && (kind === undefined || found.kind === kind)) return found;
  const why = found === undefined ? 'does not exist' : `is for ${found.kind}, not for ${kind}`;
  throw new Problem(modelUnknown, `model ${name} ${why}: GET /v1/models lists what can be asked`, {}, 'model');
}

function requireTools(context: Context<GovernedEnv>, policy: ToolPolicy, body: ChatBody, admitted: Admitted): void {
  const names = (body.tools ?? []).map((tool) => tool.function.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Problem('invalid-request', `tool ${twice} is given twice`, {}, 'tools');
  const choice = body.tool_choice;
  if (typeof choice === 'object' && !names.includes(choice.function.name)) {
    const { name } = choice.function;
    throw new Problem('invalid-request', `tool_choice names ${name}, which is not among tools`, {}, 'tool_choice');
  }
  const { requestId, caller, sessionId } = admitted;
  const { method, path } = context.req;
  policy.require({ requestId, method, path, caller, usesSession: sessionId !== null }, names);
}

/** The request as models take it: what only concerns OpenAI's own service is left out. */
function chatRequestOf(body: ChatBody, { lane, caller: { tenant } }: Admitted): ChatRequest {
  const { model, messages, tools, tool_choice, parallel_tool_calls, response_format } = body;
  return {
    ...{ model, messages, tools, tool_choice, parallel_tool_calls, response_format, lane, tenant },
    max_tokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    stop: body.stop ?? undefined,
    temperature: body.temperature ?? undefined,
    top_p: body.top_p ?? undefined,
    seed: body.seed ?? undefined,
    frequency_penalty: body.frequency_penalty ?? undefined,
    presence_penalty: body.presence_penalty ?? undefined,
  };
}

async function wholeAnswer(head: AnswerHead, chunks: AsyncIterable<ChatChunk>): Promise<ChatCompletion> {
  let text = '';
  let finish: ChatChunk['finish'];
  let usage: ChatChunk['usage'];
  const calls: { id: string; name: string; text: string }[] = [];
  for await (const chunk of chunks) {
    text += chunk.text;
    finish = chunk.finish ?? finish;
    usage = chunk.usage ?? usage;
    for (const { index, id, name, arguments: piece = '' } of chunk.toolCalls ?? []) {
      calls[index] ??= { id: '', name: '', text: '' };
      const call = calls[index];
      call.id ||= id ?? '';
      call.name ||= name ?? '';
      call.text += piece;
    }
  }
  const toolCalls = calls.filter(Boolean).map(callOf);
  const message = {
    role: 'assistant' as const,
    content: text === '' && toolCalls.length > 0 ? null : text,
    refusal: null,
    ...(toolCalls.length > 0 && { tool_calls: toolCalls }),
  };
  const choice = { index: 0, message, logprobs: null, finish_reason: finish ?? 'stop' };
  return { ...head, object: 'chat.completion', choices: [choice], usage: usageOf(usage) };
}

const callOf = ({ id, name, text }: { id: string; name: string; text: string }): ToolCall & { type: 'function' } => ({
  id,
  type: 'function',
  function: { name, arguments: text },
});

/** When a model was made is not known here: 0 says so. */
const modelOf = ({ name, providers }: ModelDescription) => ({
  id: name,
  object: 'model' as const,
  created: 0,
  owned_by: providers[0] ?? 'somagent',
});

const secondsNow = (): number => Math.floor(Date.now() / 1000);

/** Little-endian floats of 32 bits, as OpenAI's clients expect them. */
const base64Of = (vector: readonly number[]): string => Buffer.from(new Float32Array(vector).buffer).toString('base64');
