import { setTimeout as sleep } from 'node:timers/promises';

/** How often and how long a request is tried. */
export interface RetryOptions {
  /** Tries in all. @default 4 */
  readonly attempts?: number;
  /** Pause before the second try, milliseconds; it doubles with each. @default 200 */
  readonly pause?: number;
  /** The longest pause, milliseconds, also where the server asks for more. @default 10000 */
  readonly longestPause?: number;
}

type Fetch = (request: Request) => Promise<Response>;

/** Answers after which the same request may succeed. */
const passing = new Set([429, 502, 503, 504]);
const repeatable = new Set(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']);

/** Whether a repeated request has no second effect: by its method, or by the key that it carries. */
const isRepeatable = ({ method, headers }: Request): boolean =>
  repeatable.has(method) || headers.has('idempotency-key');

/**
 * A fetch that tries again what has no second effect: when the connection fails, and when the server says that it will
 * do better (429, 502, 503, 504). The pause is the server's `Retry-After`, or grows.
 */
export function retrying(fetch: Fetch, { attempts = 4, pause = 200, longestPause = 10_000 }: RetryOptions = {}): Fetch {
  return async (request) => {
    const tries = isRepeatable(request) ? attempts : 1;
    for (let attempt = 1; ; attempt += 1) {
      const outcome = await settle(fetch, request);
      const last = attempt >= tries || request.signal.aborted;
      if (last || !mayPass(outcome)) return conclude(outcome);
      const wait = retryAfter(outcome) ?? pause * 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
      await sleep(Math.min(wait, longestPause), undefined, { signal: request.signal });
    }
  };
}

type Outcome = { readonly response: Response } | { readonly error: unknown };

async function settle(fetch: Fetch, request: Request): Promise<Outcome> {
  try {
    return { response: await fetch(request.clone()) };
  } catch (error) {
    return { error };
  }
}

const mayPass = (outcome: Outcome): boolean => 'error' in outcome || passing.has(outcome.response.status);

function conclude(outcome: Outcome): Response {
  if ('error' in outcome) throw outcome.error;
  return outcome.response;
}

/** Milliseconds that the server asks to wait. */
function retryAfter(outcome: Outcome): number | undefined {
  if ('error' in outcome) return undefined;
  const seconds = Number(outcome.response.headers.get('retry-after') ?? Number.NaN);
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}
