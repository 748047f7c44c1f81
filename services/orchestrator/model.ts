import { ConfigError } from '@somagent/kit';
import { type ChatChunk, type Estimate, type Message, ModelError, type Models, type Spent } from '@somagent/models';
import type { Turn } from './contract.ts';

/** Which model answers sessions. */
export interface ModelOptions {
  readonly models: Models;
  /** Its public name. */
  readonly name: string;
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

/** Of one call. */
export interface StreamOptions {
  readonly signal: AbortSignal;
  readonly requestId: string;
  /** Whose session it is: a tenant may have a model of its own. */
  readonly tenant: string;
  /** The most that it may cost, whole millionths of a US dollar. */
  readonly costMicros: number;
  /** Told once, at the end, however it ends. */
  readonly onSpent: (spent: Spent) => void;
}

/** The language model of sessions, with whatever its chain of providers is. */
export class Model {
  readonly name: string;
  readonly #models: Models;
  readonly #maxTokens: number;

  /** @throws ConfigError where there is no such model */
  constructor({ models, name, maxTokens }: ModelOptions) {
    const chat = models.list.filter(({ kind }) => kind === 'chat').map((model) => model.name);
    if (!chat.includes(name)) {
      throw new ConfigError([
        `SESSION_MODEL is "${name}". Set it to one of MODELS_FILE: ${chat.join(', ') || 'none'}.`,
      ]);
    }
    this.name = name;
    this.#models = models;
    this.#maxTokens = maxTokens;
  }

  /** The most that an answer can use. */
  estimate(request: ModelRequest): Estimate {
    return this.#models.estimate(this.#asked(request));
  }

  /** Streams the answer. @throws ModelError; the workflow owns the retries of what has begun */
  stream(request: ModelRequest, { costMicros, tenant, ...options }: StreamOptions): AsyncIterable<ChatChunk> {
    return this.#models.complete({ ...this.#asked(request), tenant }, { ...options, budget: { costMicros } });
  }

  #asked(request: ModelRequest) {
    return { model: this.name, messages: messagesOf(request), max_tokens: this.#maxTokens };
  }
}

/** The conversation as chat messages. */
export function messagesOf(request: ModelRequest): Message[] {
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

/** Whether asking again cannot help: a request that the model refuses will be refused again. */
export const isPermanent = (error: unknown): boolean => error instanceof ModelError && error.permanent;

/** The newer half of the earlier turns; none of one. */
export const newerHalf = <Item>(history: readonly Item[]): readonly Item[] =>
  history.slice(Math.ceil(history.length / 2));
