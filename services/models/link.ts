import {
  BrokenCircuitError,
  type CircuitBreakerPolicy,
  CircuitState,
  CountBreaker,
  circuitBreaker,
  DelegateBackoff,
  handleWhen,
} from 'cockatiel';
import type { BreakerConfig, Prices, ProviderConfig, Timeouts } from './config.ts';
import { ModelError, type ModelErrorCode } from './errors.ts';
import { LatencyWindow } from './latency.ts';
import type { Provider } from './types.ts';

/** Failures that say something about the provider; the others are of the request, or of us. */
const unhealthy: ReadonlySet<ModelErrorCode> = new Set(['overloaded', 'unavailable', 'timeout', 'broken_off']);

/** Failures that a provider in good health answers with. */
const answered: ReadonlySet<ModelErrorCode> = new Set([
  'invalid_request',
  'context_length_exceeded',
  'unauthorized',
  'model_not_found',
  'rate_limited',
]);

/** A pause that a provider asks for is not longer than this, milliseconds: its clock may be wrong. */
const longestPause = 60_000;

/** One model of one provider, and what is known of its health. All callers of a process share it. */
export class Link {
  readonly name: string;
  readonly model: string;
  readonly provider: Provider;
  readonly timeouts: Timeouts;
  readonly prices: Prices;
  /** Whether somebody else is paid for it. */
  readonly billed: boolean;
  /** Times until a first token, milliseconds. */
  readonly latency = new LatencyWindow();
  readonly #breaker: CircuitBreakerPolicy;
  /** When it may be asked again after its breaker opened, or after it asked for a pause; milliseconds of `Date.now`. */
  #opensAt = 0;
  #pausedUntil = 0;

  constructor(provider: Provider, model: string, config: ProviderConfig) {
    this.name = `${provider.name}/${model}`;
    this.model = model;
    this.provider = provider;
    this.timeouts = config.timeouts;
    this.prices = config.prices[model] ?? { prompt: 0, completion: 0 };
    this.billed = config.kind !== 'slm' && this.prices.prompt + this.prices.completion > 0;
    this.#breaker = this.#createBreaker(config.breaker);
  }

  /** Why it isn't asked now; undefined: it may be asked. */
  get closedBecause(): 'circuit_open' | 'rate_limited' | undefined {
    if (this.#breaker.state === CircuitState.HalfOpen) return 'circuit_open';
    if (this.#breaker.state === CircuitState.Open && Date.now() < this.#opensAt) return 'circuit_open';
    return Date.now() < this.#pausedUntil ? 'rate_limited' : undefined;
  }

  /** Time until it may be asked, milliseconds; of a probe that runs, nobody knows. */
  get wait(): number {
    const opens = this.#breaker.state === CircuitState.Closed ? 0 : this.#opensAt;
    return Math.max(0, Math.max(opens, this.#pausedUntil) - Date.now());
  }

  /** Whether it is being tried after a failure. */
  get probing(): boolean {
    return this.#breaker.state === CircuitState.HalfOpen;
  }

  /** Runs the beginning of an attempt: its outcome decides on the health. @throws what it throws */
  begin<Result>(run: () => Promise<Result>): Promise<Result> {
    return this.#breaker.execute(run);
  }

  /** What failed after the beginning, or asks for a pause. */
  note(error: unknown): void {
    if (!(error instanceof ModelError)) return;
    if (error.code === 'rate_limited' || error.retryAfterMs !== undefined) {
      this.#pausedUntil = Date.now() + Math.min(error.retryAfterMs ?? 0, longestPause);
    }
    if (error.code !== 'broken_off' || this.#breaker.state !== CircuitState.Closed) return;
    this.#breaker.execute(() => Promise.reject(error)).catch(() => undefined);
  }

  #createBreaker({
    threshold,
    window,
    minimumRequests,
    halfOpenMs,
    maxHalfOpenMs,
  }: BreakerConfig): CircuitBreakerPolicy {
    return circuitBreaker(
      handleWhen((error) => this.#counts(error)),
      {
        halfOpenAfter: new DelegateBackoff<{ readonly attempt: number }>(({ attempt }) => {
          const delay = Math.min(maxHalfOpenMs, halfOpenMs * 2 ** (attempt - 1));
          this.#opensAt = Date.now() + delay;
          return delay;
        }),
        breaker: new CountBreaker({
          threshold,
          size: Math.max(window, minimumRequests),
          minimumNumberOfCalls: minimumRequests,
        }),
      },
    );
  }

  #counts(error: unknown): boolean {
    const code = error instanceof ModelError ? error.code : undefined;
    // A probe that is given up half-way has shown nothing: the library would take it for a success.
    if (this.probing) return code === undefined || !answered.has(code);
    return code !== undefined && unhealthy.has(code);
  }
}

/** Whether the breaker itself turned a request away. */
export const isTurnedAway = (error: unknown): boolean => error instanceof BrokenCircuitError;
