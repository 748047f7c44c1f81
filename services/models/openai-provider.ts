import { type HttpAnswer, type HttpClient, openHttpClient } from '@somagent/kit';
import type OpenAI from 'openai';
import { credentialIn, silence } from './connections.ts';
import { ModelError } from './errors.ts';
import { chunksOf, refusalOf } from './openai-wire.ts';
import type {
  ChatChunk,
  ChatRequest,
  ChatTimings,
  Embeddings,
  EmbedRequest,
  FinishReason,
  Lane,
  Provider,
  TokenUsage,
  ToolCallDelta,
} from './types.ts';

/** Options of {@link OpenAiProvider}. */
export interface OpenAiOptions {
  readonly name: string;
  readonly models: readonly string[];
  /** Ends in /v1, or as the documentation of the server says. */
  readonly url: string;
  readonly credentialFile: string;
  /** @default public authorities */
  readonly caFile?: string | undefined;
  /** Whether it is our own server, which knows lanes and deadlines. */
  readonly ours: boolean;
}

/** What only our own server is told. */
interface OwnHeaders {
  readonly lane: Lane;
  readonly tenant?: string | undefined;
  readonly deadlineMs?: number | undefined;
}

/**
 * A server that speaks OpenAI's chat API. Source: https://platform.openai.com/docs/api-reference/chat/create
 * Without OpenAI's client: every request of the platform comes through here, and the client's part of its processor time
 * was the largest.
 */
export class OpenAiProvider implements Provider {
  readonly name: string;
  readonly models: readonly string[];
  readonly #options: OpenAiOptions;
  readonly #connections: HttpClient;

  constructor(options: OpenAiOptions) {
    this.name = options.name;
    this.models = options.models;
    this.#options = options;
    this.#connections = openHttpClient(options.caFile, silence);
  }

  async *complete(request: ChatRequest, signal: AbortSignal, deadlineMs?: number): AsyncGenerator<ChatChunk> {
    const { lane, tenant, ...asked } = request;
    const clock = new Clock();
    const common = { provider: this.name, model: request.model };
    let usage: TokenUsage | undefined;
    let finish: FinishReason | undefined;
    try {
      const body = { ...asked, stream: true, stream_options: { include_usage: true } };
      const headers = this.#headers({ lane: lane ?? 'interactive', tenant, deadlineMs });
      const answer = await this.#ask('chat/completions', body, signal, headers);
      for await (const chunk of chunksOf(this.name, answer)) {
        clock.note(chunk);
        usage = usageOf(chunk.usage) ?? usage;
        const [choice] = chunk.choices;
        finish = finishOf(choice?.finish_reason) ?? finish;
        const piece = { text: choice?.delta.content ?? '', toolCalls: toolCallsOf(choice) };
        if (piece.text === '' && piece.toolCalls.length === 0) continue;
        clock.first();
        yield { ...common, text: piece.text, ...(piece.toolCalls.length === 0 ? {} : { toolCalls: piece.toolCalls }) };
      }
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof ModelError ? error : broken(this.name, error);
    }
    if (finish === undefined) throw endless(this.name);
    yield { ...common, text: '', finish, ...(usage === undefined ? {} : { usage }), timings: clock.timings() };
  }

  async embed(request: EmbedRequest, signal: AbortSignal): Promise<Embeddings> {
    try {
      const body = { model: request.model, input: request.input, encoding_format: 'float' };
      const sent = await this.#ask('embeddings', body, signal, this.#headers({ lane: 'interactive' }));
      const answer = (await sent.body.json()) as OpenAI.CreateEmbeddingResponse;
      const vectors = answer.data.toSorted((a, b) => a.index - b.index).map(({ embedding }) => embedding);
      if (vectors.length !== request.input.length) throw endless(this.name);
      const usage = { promptTokens: answer.usage.prompt_tokens };
      return { vectors, usage, provider: this.name, model: request.model };
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof ModelError ? error : broken(this.name, error);
    }
  }

  close(): Promise<void> {
    return this.#connections.close();
  }

  #headers({ lane, tenant, deadlineMs }: OwnHeaders): Record<string, string> {
    if (!this.#options.ours) return {};
    return {
      'x-soma-lane': lane,
      ...(tenant !== undefined && { 'x-soma-tenant': tenant }),
      ...(deadlineMs !== undefined && { 'x-soma-deadline-ms': String(Math.ceil(deadlineMs)) }),
    };
  }

  /** @throws ModelError when the server refuses */
  async #ask(
    path: string,
    body: object,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>>,
  ): Promise<HttpAnswer> {
    const { url, credentialFile } = this.#options;
    const authorization = `Bearer ${credentialIn(credentialFile)}`;
    const answer = await this.#connections.request(`${url.replace(/\/+$/, '')}/${path}`, {
      ...{ method: 'POST', signal, body: JSON.stringify(body) },
      headers: { authorization, 'content-type': 'application/json', accept: accepted, ...headers },
    });
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw await refusalOf(this.name, answer);
  }
}

const accepted = 'text/event-stream, application/json';

/** The connection broke: no client has a class of its own for it. */
export const broken = (provider: string, cause: unknown): ModelError =>
  new ModelError('unavailable', `${provider}: the connection broke`, { provider, cause });

/** An answer that stops without saying so is cut off. */
export const endless = (provider: string): ModelError =>
  new ModelError('unavailable', `${provider}: the answer ended before its end`, { provider });

/** Takes the times of an answer: of this side, and of the server where it tells. */
class Clock {
  readonly #asked = performance.now();
  #first: number | null = null;
  #queue: number | null = null;

  first(): void {
    this.#first ??= this.#since();
  }

  /** `soma` is what our server tells; `timings` is what its first version told. */
  note(chunk: object): void {
    const { soma, timings } = chunk as { soma?: { queueMs?: unknown }; timings?: { queue_ms?: unknown } };
    const queue = soma?.queueMs ?? timings?.queue_ms;
    if (typeof queue === 'number') this.#queue = queue;
  }

  timings(): ChatTimings {
    return { queueMs: this.#queue, firstTokenMs: this.#first, totalMs: this.#since() };
  }

  #since(): number {
    return tenths(performance.now() - this.#asked);
  }
}

const tenths = (value: number): number => Math.round(value * 10) / 10;

const usageOf = (usage: OpenAI.CompletionUsage | null | undefined): TokenUsage | undefined =>
  usage == null ? undefined : { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens };

function finishOf(reason: string | null | undefined): FinishReason | undefined {
  if (reason == null) return undefined;
  if (reason === 'function_call') return 'tool_calls';
  return reason === 'length' || reason === 'tool_calls' || reason === 'content_filter' ? reason : 'stop';
}

const toolCallsOf = (choice: OpenAI.ChatCompletionChunk.Choice | undefined): readonly ToolCallDelta[] =>
  (choice?.delta.tool_calls ?? []).map(({ index, id, function: called }) => ({
    index,
    ...(id == null ? {} : { id }),
    ...(called?.name == null ? {} : { name: called.name }),
    ...(called?.arguments == null ? {} : { arguments: called.arguments }),
  }));
