import { ModelError } from './errors.ts';
import type { Link } from './link.ts';
import type { ChatChunk, TokenUsage } from './types.ts';

/** Why an attempt is given up that nobody waits for any more. */
const unneeded = new Error('another answer is used, or none is wanted any more');

/** Asks one provider. */
export type Ask = (link: Link, signal: AbortSignal, deadlineMs: number) => AsyncIterable<ChatChunk>;

/** One request to one provider, under the provider's own limits of time. */
export class Attempt {
  readonly link: Link;
  readonly #ask: Ask;
  readonly #outer: AbortSignal;
  readonly #controller = new AbortController();
  readonly #startedAt = performance.now();
  readonly #end = () => this.#controller.abort(this.#outer.reason);
  #chunks: AsyncIterator<ChatChunk> | undefined;
  #silence: NodeJS.Timeout | undefined;
  #total: NodeJS.Timeout | undefined;
  #usage: TokenUsage | undefined;
  #pieces = 0;
  #first: number | undefined;
  #ended = false;

  constructor(link: Link, ask: Ask, outer: AbortSignal) {
    this.link = link;
    this.#ask = ask;
    this.#outer = outer;
  }

  /** Tokens that the provider told of, or that were seen: pieces are tokens, nearly everywhere. */
  spent(promptTokens: number): TokenUsage {
    return {
      promptTokens: this.#usage?.promptTokens ?? promptTokens,
      completionTokens: Math.max(this.#usage?.completionTokens ?? 0, this.#pieces),
    };
  }

  /** Time until the first token, or since the beginning while there is none, milliseconds. */
  get waited(): number {
    return this.#first ?? performance.now() - this.#startedAt;
  }

  /**
   * Asks, and waits for the first piece of the answer.
   * @param deadlineMs time that is left for all of it
   * @throws ModelError; the reason of the outer signal
   */
  async begin(deadlineMs: number): Promise<ChatChunk> {
    const { firstTokenMs, totalMs } = this.link.timeouts;
    this.#outer.throwIfAborted();
    this.#outer.addEventListener('abort', this.#end, { once: true });
    this.#silence = this.#limit(firstTokenMs, `no token within ${firstTokenMs} ms`);
    this.#total = this.#limit(totalMs, `no end within ${totalMs} ms`);
    try {
      this.#chunks = this.#ask(this.link, this.#controller.signal, deadlineMs)[Symbol.asyncIterator]();
      const first = await this.#next();
      this.#first = performance.now() - this.#startedAt;
      return first;
    } catch (error) {
      this.#settle();
      throw error;
    }
  }

  /** The rest of the answer, after {@link begin}. @throws ModelError `broken_off`; the reason of the outer signal */
  async *rest(first: ChatChunk): AsyncGenerator<ChatChunk> {
    const { idleMs } = this.link.timeouts;
    let chunk = first;
    clearTimeout(this.#silence);
    this.#silence = this.#limit(idleMs, `silent for ${idleMs} ms`);
    try {
      yield chunk;
      while (chunk.finish === undefined) {
        this.#silence.refresh();
        chunk = await this.#next();
        yield chunk;
      }
    } catch (error) {
      throw error instanceof ModelError && error.code !== 'deadline_exceeded' ? brokenOff(error) : error;
    } finally {
      this.cancel();
    }
  }

  /** Lets the connection go, if it still runs. */
  cancel(): void {
    this.#settle();
    // An answer that has ended keeps its connection, one that runs is cut.
    if (!this.#ended) this.#controller.abort(unneeded);
    void this.#chunks?.return?.(undefined).catch(() => undefined);
  }

  /** The next piece that says something. */
  async #next(): Promise<ChatChunk> {
    for (;;) {
      const { done, value } = (await this.#chunks?.next()) ?? { done: true, value: undefined };
      if (done || value === undefined) throw new ModelError('unavailable', `${this.link.name}: no answer`);
      this.#usage = value.usage ?? this.#usage;
      const says = value.text !== '' || value.toolCalls !== undefined || value.finish !== undefined;
      if (!says) continue;
      if (value.finish === undefined) this.#pieces += 1;
      else this.#ended = true;
      return value;
    }
  }

  #limit(milliseconds: number, what: string): NodeJS.Timeout {
    return setTimeout(() => {
      const message = `${this.link.name}: ${what}`;
      this.#controller.abort(new ModelError('timeout', message, { provider: this.link.provider.name }));
    }, milliseconds);
  }

  #settle(): void {
    clearTimeout(this.#silence);
    clearTimeout(this.#total);
    this.#outer.removeEventListener('abort', this.#end);
  }
}

function brokenOff(error: ModelError): ModelError {
  const { provider, status, retryAfterMs } = error;
  const message = `${error.message}, after its first token`;
  return new ModelError('broken_off', message, { provider, status, retryAfterMs, cause: error });
}
