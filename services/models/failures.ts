import { ModelError, type ModelErrorCode } from './errors.ts';

/** What the clients of both protocols tell of a request that failed. */
export interface ProviderFailure {
  /** Undefined: there was no answer, or the answer had begun. */
  readonly status: number | undefined;
  /** Of the body: `type` or `code`. */
  readonly kinds: readonly (string | null | undefined)[];
  readonly message: string;
  readonly headers: Headers | undefined;
  readonly cause: unknown;
}

const kindCodes: Readonly<Record<string, ModelErrorCode>> = {
  context_length_exceeded: 'context_length_exceeded',
  exceed_context_size_error: 'context_length_exceeded',
  request_too_large: 'context_length_exceeded',
  rate_limit_error: 'rate_limited',
  rate_limit_exceeded: 'rate_limited',
  overloaded_error: 'overloaded',
  api_error: 'overloaded',
  server_error: 'overloaded',
  timeout_error: 'timeout',
  deadline_exceeded: 'deadline_exceeded',
  authentication_error: 'unauthorized',
  permission_error: 'unauthorized',
  billing_error: 'unauthorized',
  not_found_error: 'model_not_found',
  model_not_found: 'model_not_found',
  invalid_request_error: 'invalid_request',
};

/** The error that callers see of what a provider answered, or did not. */
export function failureOf(provider: string, failure: ProviderFailure): ModelError {
  const code = codeOf(failure);
  const { status, message, headers, cause } = failure;
  const retryAfterMs = retryAfterOf(headers);
  return new ModelError(code, `${provider}: ${message}`, { provider, status, retryAfterMs, cause });
}

function codeOf({ status, kinds, message }: ProviderFailure): ModelErrorCode {
  const named = kinds.flatMap((kind) => (kind != null && Object.hasOwn(kindCodes, kind) ? [kindCodes[kind]] : []));
  // Anthropic's API has no code of its own for it: https://platform.claude.com/docs/en/build-with-claude/context-windows
  const tooLong =
    named.includes('context_length_exceeded') || /prompt is too long|context (window|limit)/i.test(message);
  if (tooLong && (status === undefined || status < 500)) return 'context_length_exceeded';
  return (status === undefined ? undefined : statusCode(status)) ?? named[0] ?? 'unavailable';
}

function statusCode(status: number): ModelErrorCode | undefined {
  switch (status) {
    case 401:
    case 402:
    case 403:
      return 'unauthorized';
    case 404:
      return 'model_not_found';
    case 408:
      return 'timeout';
    case 409:
    case 425:
      return 'overloaded';
    case 413:
      return 'context_length_exceeded';
    case 429:
      return 'rate_limited';
    default:
      return status >= 500 ? 'overloaded' : status >= 400 ? 'invalid_request' : undefined;
  }
}

/** Milliseconds of `retry-after-ms`, or of `retry-after` in seconds or as a date (RFC 9110, section 10.2.3). */
export function retryAfterOf(headers: Headers | undefined, now = Date.now()): number | undefined {
  const milliseconds = Number(headers?.get('retry-after-ms') ?? Number.NaN);
  if (milliseconds >= 0) return milliseconds;
  const text = headers?.get('retry-after');
  if (text == null || text === '') return undefined;
  const seconds = Number(text);
  const wait = Number.isNaN(seconds) ? Date.parse(text) - now : seconds * 1000;
  return Number.isNaN(wait) ? undefined : Math.max(0, Math.round(wait));
}
