/**
 * Gathers generated text and hands it on at most every `interval` milliseconds, one write at a time and in order.
 * The first piece goes at once, so that the reader sees the first token without delay.
 */
export class TokenBatch {
  readonly #write: (text: string) => Promise<void>;
  readonly #interval: number;
  #pending = '';
  #lastFlush = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failure: unknown;

  constructor(write: (text: string) => Promise<void>, interval = 50) {
    this.#write = write;
    this.#interval = interval;
  }

  /** @throws the error of an earlier write, so that a generation whose events cannot be stored stops. */
  add(text: string): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#pending += text;
    if (this.#timer !== undefined) return;
    const wait = this.#lastFlush + this.#interval - performance.now();
    this.#timer = setTimeout(() => this.#flush(), Math.max(0, wait));
  }

  /**
   * Waits for all writes and writes no more.
   * @returns the text that is not written: it can go along with what comes next.
   * @throws the first error of a write.
   */
  async end(): Promise<string> {
    clearTimeout(this.#timer);
    const rest = this.#pending;
    this.#pending = '';
    await this.#writing;
    if (this.#failure !== undefined) throw this.#failure;
    return rest;
  }

  /** Writes nothing more. */
  async abandon(): Promise<void> {
    clearTimeout(this.#timer);
    this.#pending = '';
    await this.#writing;
  }

  #flush(): void {
    this.#timer = undefined;
    if (this.#pending === '') return;
    this.#lastFlush = performance.now();
    this.#writing = this.#writing.then(async () => {
      // While a slow write ran, more may have come: it goes along.
      const text = this.#pending;
      this.#pending = '';
      if (text === '' || this.#failure !== undefined) return;
      await this.#write(text).catch((error: unknown) => {
        this.#failure = error;
      });
    });
  }
}
