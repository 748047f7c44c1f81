/** The newest measurements of one provider and model, and their quantiles. */
export class LatencyWindow {
  readonly #size: number;
  readonly #samples: number[] = [];
  #next = 0;

  /** @param size measurements that are kept */
  constructor(size = 512) {
    this.#size = size;
  }

  get count(): number {
    return this.#samples.length;
  }

  /** @param milliseconds one measurement */
  add(milliseconds: number): void {
    this.#samples[this.#next] = milliseconds;
    this.#next = (this.#next + 1) % this.#size;
  }

  /** The smallest measurement that at least that share of all is not above; undefined without measurements. */
  quantile(share: number): number | undefined {
    const sorted = this.#samples.toSorted((a, b) => a - b);
    return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  }
}

/** Lets a share of requests through, and a few more at once after a quiet time. */
export class Allowance {
  readonly #share: number;
  readonly #burst: number;
  #saved: number;

  /** @param burst most that can be saved up: over n requests, at most `burst + share × n` pass */
  constructor(share: number, burst = 2) {
    this.#share = share;
    this.#burst = burst;
    this.#saved = burst;
  }

  /** Counts one request. */
  earn(): void {
    this.#saved = Math.min(this.#burst, this.#saved + this.#share);
  }

  /** @returns whether one more may pass */
  take(): boolean {
    if (this.#saved < 1) return false;
    this.#saved -= 1;
    return true;
  }
}
