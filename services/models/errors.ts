/** What went wrong, in words that callers may rely on. */
export type ModelErrorCode =
  /** No model of that name is configured. */
  | 'unknown_model'
  /** The request is wrong, whoever answers it. */
  | 'invalid_request'
  /** The conversation is longer than the model reads. */
  | 'context_length_exceeded'
  /** The request asks for something that this provider can't do. */
  | 'unsupported'
  /** The provider doesn't accept our credential. */
  | 'unauthorized'
  /** The provider has no model of that name. */
  | 'model_not_found'
  /** Too many requests for the provider: 429. */
  | 'rate_limited'
  /** The provider says that it is overloaded, or fails by itself: 5xx, 529. */
  | 'overloaded'
  /** No connection, or one that broke before the answer began. */
  | 'unavailable'
  /** The provider took longer than its own limit. */
  | 'timeout'
  /** The answer broke off after its first token: nobody else can go on with it. */
  | 'broken_off'
  /** The circuit breaker of the provider is open. */
  | 'circuit_open'
  /** The time for the whole chain is over. */
  | 'deadline_exceeded'
  /** No attempt fits into the cost that the call may have. */
  | 'budget_exceeded'
  /** No provider of the chain could answer. */
  | 'exhausted';

/** Details of a {@link ModelError}. */
export interface ModelErrorDetails {
  readonly provider?: string | undefined;
  /** HTTP status that the provider answered with. */
  readonly status?: number | undefined;
  /** When to come again, milliseconds, as the provider said. */
  readonly retryAfterMs?: number | undefined;
  /** What happened at each attempt, oldest first. */
  readonly reasons?: readonly string[] | undefined;
  /** Cost of the attempts that failed, whole millionths of a US dollar. */
  readonly costMicros?: number | undefined;
  readonly cause?: unknown;
}

/** A model that didn't answer. */
export class ModelError extends Error {
  readonly code: ModelErrorCode;
  readonly provider: string | undefined;
  readonly status: number | undefined;
  readonly retryAfterMs: number | undefined;
  readonly reasons: readonly string[];
  readonly costMicros: number;

  constructor(code: ModelErrorCode, message: string, details: ModelErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'ModelError';
    this.code = code;
    this.provider = details.provider;
    this.status = details.status;
    this.retryAfterMs = details.retryAfterMs;
    this.reasons = details.reasons ?? [];
    this.costMicros = details.costMicros ?? 0;
  }

  /** Whether the same request would be refused again, by whatever time and provider. */
  get permanent(): boolean {
    return permanent.has(this.code);
  }
}

const permanent: ReadonlySet<ModelErrorCode> = new Set([
  'unknown_model',
  'invalid_request',
  'context_length_exceeded',
  'unsupported',
  'unauthorized',
  'model_not_found',
  'budget_exceeded',
]);

/** Whether an error says that the conversation is longer than the model reads. */
export const isTooLong = (error: unknown): boolean =>
  error instanceof ModelError && error.code === 'context_length_exceeded';
