/**
 * What a model is asked and what it answers, in the words of OpenAI's chat API
 * (https://platform.openai.com/docs/api-reference/chat), because every caller and most servers speak it.
 */

/** Who waits: a person, or work that may come later. */
export type Lane = 'interactive' | 'batch';

/** A piece of a message. Only text is understood. */
export interface TextPart {
  readonly type: 'text';
  readonly text: string;
}

export type Content = string | readonly TextPart[];

/** A whole call of a tool, as an assistant made it. */
export interface ToolCall {
  readonly id: string;
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    /** JSON text; whatever the model wrote, so it may be invalid. */
    readonly arguments: string;
  };
}

export type Message =
  | { readonly role: 'system' | 'developer' | 'user'; readonly content: Content }
  | {
      readonly role: 'assistant';
      readonly content?: Content | null | undefined;
      readonly tool_calls?: readonly ToolCall[] | undefined;
    }
  | { readonly role: 'tool'; readonly content: Content; readonly tool_call_id: string };

/** A tool that the model may call. */
export interface Tool {
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    readonly description?: string | undefined;
    /** JSON Schema of its arguments. */
    readonly parameters?: Readonly<Record<string, unknown>> | undefined;
    readonly strict?: boolean | null | undefined;
  };
}

export type ToolChoice =
  | 'none'
  | 'auto'
  | 'required'
  | { readonly type: 'function'; readonly function: { readonly name: string } };

/** What the text of the answer must be. */
export type ResponseFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json_object' }
  | {
      readonly type: 'json_schema';
      readonly json_schema: {
        readonly name: string;
        readonly description?: string | undefined;
        readonly schema?: Readonly<Record<string, unknown>> | undefined;
        readonly strict?: boolean | null | undefined;
      };
    };

/** A request for an answer. A field that is absent or undefined is left to the model's server. */
export interface ChatRequest {
  /** For {@link Models}: the public name. For a {@link Provider}: its own name of the model. */
  readonly model: string;
  readonly messages: readonly Message[];
  readonly tools?: readonly Tool[] | undefined;
  readonly tool_choice?: ToolChoice | undefined;
  readonly parallel_tool_calls?: boolean | undefined;
  readonly response_format?: ResponseFormat | undefined;
  /** Most tokens of the answer. @default the model's `maxTokens` in the configuration */
  readonly max_tokens?: number | undefined;
  readonly temperature?: number | undefined;
  readonly top_p?: number | undefined;
  readonly seed?: number | undefined;
  readonly stop?: string | readonly string[] | undefined;
  readonly frequency_penalty?: number | undefined;
  readonly presence_penalty?: number | undefined;
  /** @default 'interactive' */
  readonly lane?: Lane | undefined;
  /**
   * Whose request it is: our own server answers with the tenant's own model where one was promoted. No other server is
   * told. @default nobody's own model answers
   */
  readonly tenant?: string | undefined;
}

/** Tokens as the model counted them. */
export interface TokenUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Where the time went, milliseconds. */
export interface ChatTimings {
  /** In the queue of the model's server; null where it doesn't tell. */
  readonly queueMs: number | null;
  /** From the request until the first token; null when none came. */
  readonly firstTokenMs: number | null;
  readonly totalMs: number;
}

/** A piece of a call: `id` and `name` come with the first piece of each `index`, `arguments` in pieces of JSON text. */
export interface ToolCallDelta {
  readonly index: number;
  readonly id?: string;
  readonly name?: string;
  readonly arguments?: string;
}

/** `content_filter`: the provider wouldn't go on. */
export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter';

/** A piece of an answer. */
export interface ChatChunk {
  /** May be empty. */
  readonly text: string;
  readonly toolCalls?: readonly ToolCallDelta[];
  readonly finish?: FinishReason;
  readonly usage?: TokenUsage;
  readonly timings?: ChatTimings;
  /** Name of the provider that answers. */
  readonly provider: string;
  /** The provider's name of the model that answers. */
  readonly model: string;
  /** With the last chunk of {@link Models}: why not the first of the chain answered, oldest first; empty if it did. */
  readonly reasons?: readonly string[];
  /**
   * With the last chunk of {@link Models}: cost of every attempt at this answer in whole millionths of a US dollar,
   * by the configured prices. One that was given up after the provider had begun counts with the tokens that it told
   * of, else with the prompt of the answer and a token for each piece that came.
   */
  readonly costMicros?: number;
}

/** The last chunk of {@link Models}: what it says is never absent. */
export type LastChunk = ChatChunk & Required<Pick<ChatChunk, 'finish' | 'timings' | 'reasons' | 'costMicros'>>;

/** Whether a chunk is the last of an answer of {@link Models}. */
export const isLast = (chunk: ChatChunk): chunk is LastChunk => chunk.costMicros !== undefined;

/** Texts to embed. */
export interface EmbedRequest {
  readonly model: string;
  readonly input: readonly string[];
}

/** Vectors in the order of the texts. */
export interface Embeddings {
  readonly vectors: readonly (readonly number[])[];
  readonly usage: { readonly promptTokens: number };
  readonly provider: string;
  readonly model: string;
  /** See {@link ChatChunk.costMicros}. Absent from a single provider. */
  readonly costMicros?: number;
  readonly reasons?: readonly string[];
}

/** One server of models. Implementations don't retry, don't fall back and keep nothing after their signal. */
export interface Provider {
  /** As in the configuration. */
  readonly name: string;
  /** The models that the configuration asks of it, by its own names. */
  readonly models: readonly string[];
  /**
   * Streams an answer. Ends with a chunk that has `finish`, `usage` where the server counts, and `timings`.
   * @param deadlineMs time that is left, milliseconds: for servers that would rather refuse than be late
   * @throws ModelError; `signal.reason` when the signal ends it
   */
  complete(request: ChatRequest, signal: AbortSignal, deadlineMs?: number): AsyncIterable<ChatChunk>;
  /** @throws ModelError; `signal.reason` when the signal ends it */
  embed?(request: EmbedRequest, signal: AbortSignal): Promise<Embeddings>;
  /** Ends its idle connections. */
  close(): Promise<void>;
}

/** Limits of one call of {@link Models}. */
export interface CallOptions {
  /** Ends the call: every attempt is cancelled and its connection is let go. */
  readonly signal: AbortSignal;
  /** Time for the whole chain, milliseconds. @default the model's `timeoutMs` in the configuration */
  readonly deadlineMs?: number;
  /** What the call may use. @default the model's own in the configuration */
  readonly budget?: CallBudget;
  /** Goes into log lines and traces. */
  readonly requestId?: string;
  /** Told once, at the end, also of a call that fails or is cancelled: what it has used. */
  readonly onSpent?: (spent: Spent) => void;
}

/** What one call has used. */
export interface Spent {
  /**
   * Of the attempt that answered or was answering; zero when none had begun. Pieces count as tokens and bytes of the
   * prompt too where the provider had not told yet.
   */
  readonly usage: TokenUsage;
  /** See {@link ChatChunk.costMicros}. */
  readonly costMicros: number;
  /** See {@link ChatChunk.reasons}. */
  readonly reasons: readonly string[];
  /** Of the attempt that answered or was answering; null when none had begun. */
  readonly provider: string | null;
  readonly model: string | null;
}

/** What one call may use over all its attempts. */
export interface CallBudget {
  /**
   * Whole millionths of a US dollar: an attempt that could exceed what is left isn't begun.
   * @default what {@link Models.estimate} says
   */
  readonly costMicros?: number;
  /** Attempts, hedges included. */
  readonly attempts?: number;
}

/** The most that a request can use. */
export interface Estimate {
  /** Of prompt and answer: bytes count as tokens, because no tokenizer in use makes more of them. */
  readonly tokens: number;
  /** Of every attempt that its chain may make: each reads the prompt, one gives the whole answer. */
  readonly costMicros: number;
  /** Whether somebody else sends a bill for it, unlike our own model server: what has begun is then lost. */
  readonly billed: boolean;
}

/** A model as clients see it. */
export interface ModelDescription {
  readonly name: string;
  readonly kind: 'chat' | 'embedding';
  /** Providers of its chain, in order. */
  readonly providers: readonly string[];
}

/** Every configured model behind one door, with fallback chains, circuit breakers and hedging. */
export interface Models {
  /** In the order of the configuration. */
  readonly list: readonly ModelDescription[];
  /** The most that a request can use: what to reserve before it runs. @throws ModelError `unknown_model` */
  estimate(request: ChatRequest | EmbedRequest): Estimate;
  /**
   * Streams an answer; the last chunk is a {@link LastChunk}. Leaving the loop early cancels the attempt.
   * @throws ModelError; `signal.reason` when the signal ends it
   */
  complete(request: ChatRequest, options: CallOptions): AsyncIterable<ChatChunk>;
  /** @throws ModelError; `signal.reason` when the signal ends it */
  embed(request: EmbedRequest, options: CallOptions): Promise<Embeddings>;
  close(): Promise<void>;
}
