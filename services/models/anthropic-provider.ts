import Anthropic from '@anthropic-ai/sdk';
import type { HttpClient } from '@somagent/kit';
import { anthropicRequest } from './anthropic-request.ts';
import { credentialIn, openConnections } from './connections.ts';
import type { ModelError } from './errors.ts';
import { failureOf } from './failures.ts';
import { broken, endless } from './openai-provider.ts';
import type { ChatChunk, ChatRequest, FinishReason, Provider, TokenUsage } from './types.ts';

/** Options of {@link AnthropicProvider}. */
export interface AnthropicOptions {
  readonly name: string;
  readonly models: readonly string[];
  /** Without /v1. */
  readonly url: string;
  readonly credentialFile: string;
  /** @default public authorities */
  readonly caFile?: string | undefined;
}

/** A server that speaks Anthropic's Messages API. Source: https://platform.claude.com/docs/en/api/messages */
export class AnthropicProvider implements Provider {
  readonly name: string;
  readonly models: readonly string[];
  readonly #connections: HttpClient;
  readonly #client: Anthropic;

  constructor(options: AnthropicOptions) {
    this.name = options.name;
    this.models = options.models;
    this.#connections = openConnections(options.caFile);
    this.#client = new Anthropic({
      apiKey: async () => credentialIn(options.credentialFile),
      authToken: null,
      baseURL: options.url,
      fetch: this.#connections.fetch,
      maxRetries: 0,
      // The caller's signal ends a request.
      timeout: 2_147_483_647,
      logLevel: 'off',
    });
  }

  async *complete(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatChunk> {
    const body = anthropicRequest(request, this.name);
    const answer = new Answer({ provider: this.name, model: request.model });
    try {
      const events = await this.#client.messages.create(body, { signal });
      for await (const event of events) {
        const chunk = answer.take(event);
        if (chunk !== undefined) yield chunk;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw this.#failure(error);
    }
    // The client ends the stream without an error when it is aborted.
    signal.throwIfAborted();
    yield answer.last() ?? fail(endless(this.name));
  }

  close(): Promise<void> {
    return this.#connections.close();
  }

  #failure(error: unknown): ModelError {
    if (!(error instanceof Anthropic.APIError)) return broken(this.name, error);
    const { status, type, message, headers } = error;
    return failureOf(this.name, { status, kinds: [type], message, headers, cause: error });
  }
}

const fail = (error: Error): never => {
  throw error;
};

/** Turns the events of one answer into chunks. */
class Answer {
  readonly #common: { readonly provider: string; readonly model: string };
  readonly #asked = performance.now();
  /** Place of each tool call among the calls, by the index of its block. */
  readonly #calls = new Map<number, number>();
  #first: number | null = null;
  #finish: FinishReason | undefined;
  #stopped = false;
  #prompt = 0;
  #completion = 0;

  constructor(common: { readonly provider: string; readonly model: string }) {
    this.#common = common;
  }

  take(event: Anthropic.RawMessageStreamEvent): ChatChunk | undefined {
    switch (event.type) {
      case 'message_start':
        this.#prompt = promptTokens(event.message.usage);
        // What has been read is paid for, also if nothing follows.
        return { ...this.#common, text: '', usage: this.#usage() };
      case 'content_block_start':
        return this.#start(event);
      case 'content_block_delta':
        return this.#delta(event);
      case 'message_delta':
        this.#finish = finishOf(event.delta.stop_reason) ?? this.#finish;
        this.#prompt = Math.max(this.#prompt, promptTokens(event.usage));
        this.#completion = event.usage.output_tokens;
        return undefined;
      case 'message_stop':
        this.#stopped = true;
        return undefined;
      default:
        return undefined;
    }
  }

  last(): ChatChunk | undefined {
    if (!this.#stopped || this.#finish === undefined) return undefined;
    const timings = { queueMs: null, firstTokenMs: this.#first, totalMs: this.#since() };
    return { ...this.#common, text: '', finish: this.#finish, usage: this.#usage(), timings };
  }

  #start({ index, content_block: block }: Anthropic.RawContentBlockStartEvent): ChatChunk | undefined {
    if (block.type !== 'tool_use') return undefined;
    const place = this.#calls.size;
    this.#calls.set(index, place);
    this.#first ??= this.#since();
    return { ...this.#common, text: '', toolCalls: [{ index: place, id: block.id, name: block.name, arguments: '' }] };
  }

  #delta({ index, delta }: Anthropic.RawContentBlockDeltaEvent): ChatChunk | undefined {
    if (delta.type === 'text_delta' && delta.text !== '') {
      this.#first ??= this.#since();
      return { ...this.#common, text: delta.text };
    }
    const place = this.#calls.get(index);
    if (delta.type !== 'input_json_delta' || place === undefined || delta.partial_json === '') return undefined;
    return { ...this.#common, text: '', toolCalls: [{ index: place, arguments: delta.partial_json }] };
  }

  #usage(): TokenUsage {
    return { promptTokens: this.#prompt, completionTokens: this.#completion };
  }

  #since(): number {
    return Math.round((performance.now() - this.#asked) * 10) / 10;
  }
}

/** What was read from the cache was read all the same: `input_tokens` leaves it out. */
const promptTokens = (usage: Partial<Pick<Anthropic.MessageDeltaUsage, PromptCount>>): number =>
  (usage.input_tokens ?? 0) + (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0);

type PromptCount = 'input_tokens' | 'cache_read_input_tokens' | 'cache_creation_input_tokens';

function finishOf(reason: Anthropic.StopReason | null): FinishReason | undefined {
  switch (reason) {
    case null:
      return undefined;
    case 'max_tokens':
    case 'model_context_window_exceeded':
      return 'length';
    case 'tool_use':
      return 'tool_calls';
    case 'refusal':
      return 'content_filter';
    default:
      return 'stop';
  }
}
