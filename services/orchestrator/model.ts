import { readFileSync } from 'node:fs';
import { fetchTrusting } from '@somagent/kit';
import OpenAI from 'openai';
import type { Turn, Usage } from './contract.ts';

/** Where the model is and how it is asked. */
export interface ModelOptions {
  /** Base address of the OpenAI-compatible endpoint, ending in /v1. */
  readonly url: string;
  readonly model: string;
  readonly apiKeyFile: string;
  readonly caFile: string;
  /** Most tokens of one answer. */
  readonly maxTokens: number;
}

/** What the model is asked. */
export interface ModelRequest {
  readonly persona: string | undefined;
  readonly history: readonly Pick<Turn, 'prompt' | 'answer'>[];
  readonly prompt: string;
  /** What is remembered from earlier conversations, as data in a block of its own. @default nothing */
  readonly recalled?: string;
}

/** A piece of an answer, or its count of tokens at the end. */
export interface ModelChunk {
  readonly text: string;
  readonly usage: Usage | null;
}

/** A language model behind an OpenAI-compatible endpoint. */
export class Model {
  readonly #options: ModelOptions;
  readonly #fetch: typeof fetch;

  constructor(options: ModelOptions) {
    this.#options = options;
    this.#fetch = keepingConnections(fetchTrusting(options.caFile));
  }

  /** Streams the answer. @throws OpenAI.APIError; the workflow owns the retries. */
  async *stream(request: ModelRequest, signal: AbortSignal): AsyncGenerator<ModelChunk> {
    const { url, model, apiKeyFile, maxTokens } = this.#options;
    // The key is read each time, so a rotated one needs no restart.
    const apiKey = readFileSync(apiKeyFile, 'utf8').trim();
    const client = new OpenAI({ apiKey, baseURL: url, fetch: this.#fetch, maxRetries: 0, timeout: 60_000 });
    const chunks = await client.chat.completions.create(
      {
        model,
        messages: messagesOf(request),
        max_tokens: maxTokens,
        stream: true,
        stream_options: { include_usage: true },
      },
      { signal },
    );
    for await (const chunk of chunks) {
      const usage = chunk.usage ?? null;
      yield {
        text: chunk.choices[0]?.delta.content ?? '',
        usage: usage && { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens },
      };
    }
  }
}

/**
 * A `fetch` whose connections survive a body that is cancelled: the client leaves an answer at its last event and
 * cancels what is left, a few bytes, and each answer would need a connection and a TLS handshake of its own. What is
 * aborted by its signal still ends at once.
 */
export function keepingConnections(inner: typeof fetch): typeof fetch {
  return async (input, init) => {
    const response = await inner(input, init);
    const { status, statusText, headers, body } = response;
    return body === null ? response : new Response(readToEnd(body), { status, statusText, headers });
  };
}

function readToEnd(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const rest = async (): Promise<void> => {
    while (!(await reader.read()).done);
  };
  return new ReadableStream({
    pull: async (controller) => {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => void rest().catch(() => undefined),
  });
}

/** The conversation as chat messages. */
export function messagesOf(request: ModelRequest): OpenAI.ChatCompletionMessageParam[] {
  const { persona, history, prompt, recalled } = request;
  return [
    ...(persona === undefined ? [] : [{ role: 'system' as const, content: persona }]),
    ...history.flatMap((turn) => [
      { role: 'user' as const, content: turn.prompt },
      { role: 'assistant' as const, content: turn.answer },
    ]),
    // Never a system message, and no message of its own: templates want roles in turn.
    { role: 'user' as const, content: recalled === undefined ? prompt : `${recalled}\n\n${prompt}` },
  ];
}

/** Whether asking again can help: a request that the model refuses will be refused again. */
export function isPermanent(error: unknown): boolean {
  if (!(error instanceof OpenAI.APIError)) return false;
  const { status } = error;
  return typeof status === 'number' && status >= 400 && status < 500 && ![408, 409, 425, 429].includes(status);
}

/** Whether the conversation is longer than the model can read; fewer earlier turns may then fit. */
export const isTooLong = (error: unknown): boolean =>
  error instanceof OpenAI.APIError && error.code === 'context_length_exceeded';

/** The newer half of the earlier turns; none of one. */
export const newerHalf = <Item>(history: readonly Item[]): readonly Item[] =>
  history.slice(Math.ceil(history.length / 2));
