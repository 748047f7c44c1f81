import { setTimeout as sleep } from 'node:timers/promises';
import { type Ask, Attempt } from './attempt.ts';
import type { ModelConfig } from './config.ts';
import { costOf } from './cost.ts';
import { ModelError, type ModelErrorCode } from './errors.ts';
import type { Allowance } from './latency.ts';
import { isTurnedAway, type Link } from './link.ts';
import type { CallOptions, ChatChunk, Spent, TokenUsage } from './types.ts';

/** A model with the links of its chain, first choice first. All calls of a process share it. */
export interface Chain {
  readonly name: string;
  readonly config: ModelConfig;
  readonly links: readonly Link[];
  /** How many requests may be hedged. */
  readonly hedges: Allowance;
}

/** What a call asks for. */
export interface Asked {
  readonly ask: Ask;
  /** The most tokens of prompt and answer. */
  readonly bound: TokenUsage;
  /** Whole millionths of a US dollar. */
  readonly costMicros: number;
}

/** A link cannot do better when it is asked again. */
const final: ReadonlySet<ModelErrorCode> = new Set([
  'unauthorized',
  'model_not_found',
  'unsupported',
  'context_length_exceeded',
  'budget_exceeded',
]);

/** After these the provider may have worked, and wants its money. */
const charged: ReadonlySet<ModelErrorCode> = new Set(['timeout', 'broken_off']);

/** First pause before a link is asked again, milliseconds; it doubles, and is spread by chance. */
const firstPause = 100;
const longestPause = 2000;
/** How often a link is looked at whose probe runs, milliseconds. */
const look = 50;

interface Try {
  count: number;
  /** Milliseconds of `Date.now`. */
  notBefore: number;
  /** Not to be asked again in this call. */
  over: ModelError | undefined;
  told: boolean;
}

type Outcome =
  | { readonly attempt: Attempt; readonly first: ChatChunk }
  | { readonly attempt: Attempt; readonly error: unknown };

/**
 * One request on its way through a chain: asks one link after the other until one begins to answer, or two at once
 * when the first takes long. What has begun to answer is never asked again.
 */
export class Call {
  readonly #chain: Chain;
  readonly #asked: Asked;
  readonly #options: CallOptions;
  readonly #controller = new AbortController();
  readonly #startedAt = performance.now();
  readonly #deadlineAt: number;
  readonly #deadline: NodeJS.Timeout;
  readonly #cancel = () => this.#controller.abort(this.#options.signal.reason);
  readonly #tries: ReadonlyMap<Link, Try>;
  readonly #running = new Set<Attempt>();
  /** Given up, though their providers may have worked. */
  readonly #charged: Attempt[] = [];
  readonly #reasons: string[] = [];
  #attempts = 0;
  #lastError: ModelError | undefined;
  #answering: Attempt | undefined;
  #usage: TokenUsage | undefined;

  constructor(chain: Chain, asked: Asked, options: CallOptions) {
    this.#chain = chain;
    this.#asked = asked;
    this.#options = options;
    const milliseconds = options.deadlineMs ?? chain.config.timeoutMs;
    this.#deadlineAt = this.#startedAt + milliseconds;
    this.#deadline = setTimeout(() => {
      this.#controller.abort(new ModelError('deadline_exceeded', `${chain.name}: no answer within ${milliseconds} ms`));
    }, milliseconds);
    this.#tries = new Map(chain.links.map((link) => [link, { count: 0, notBefore: 0, over: undefined, told: false }]));
    options.signal.addEventListener('abort', this.#cancel, { once: true });
    if (options.signal.aborted) this.#cancel();
  }

  /** What it has used so far. */
  get spent(): Spent {
    const { bound } = this.#asked;
    const known = this.#answering?.spent(bound.promptTokens);
    const usage = this.#usage ?? known ?? { promptTokens: 0, completionTokens: 0 };
    const prompt = known === undefined ? bound.promptTokens : usage.promptTokens;
    const own = costOf(usage, this.#answering?.link.prices);
    const others = this.#charged.map((attempt) => costOf(attempt.spent(prompt), attempt.link.prices));
    return {
      usage,
      costMicros: others.reduce((sum, cost) => sum + cost, own),
      reasons: [...this.#reasons],
      provider: this.#answering?.link.provider.name ?? null,
      model: this.#answering?.link.model ?? null,
    };
  }

  async *run(): AsyncGenerator<ChatChunk> {
    try {
      const { attempt, first } = await this.#first();
      this.#answering = attempt;
      const firstTokenMs = this.#since();
      for await (const chunk of attempt.rest(first)) {
        yield chunk.finish === undefined ? chunk : this.#last(chunk, firstTokenMs);
      }
    } catch (error) {
      throw this.#failure(error);
    } finally {
      this.#end();
    }
  }

  #last(chunk: ChatChunk, firstTokenMs: number): ChatChunk {
    this.#usage = chunk.usage;
    const { costMicros, reasons } = this.spent;
    const answered = chunk.timings?.firstTokenMs === null ? null : firstTokenMs;
    const timings = { queueMs: chunk.timings?.queueMs ?? null, firstTokenMs: answered, totalMs: this.#since() };
    return { ...chunk, timings, reasons, costMicros };
  }

  async #first(): Promise<{ readonly attempt: Attempt; readonly first: ChatChunk }> {
    this.#chain.hedges.earn();
    for (;;) {
      this.#controller.signal.throwIfAborted();
      const link = this.#choose();
      if (link === undefined) await this.#pause();
      const won = link === undefined ? undefined : await this.#race(link);
      if (won !== undefined) return won;
    }
  }

  /** The link to ask next: the least tried one that takes requests; undefined when none does at the moment. */
  #choose(): Link | undefined {
    if (this.#attempts >= this.#attemptLimit) throw this.#exhausted();
    const { links } = this.#chain;
    const [best] = links
      .filter((link) => this.#mayAsk(link))
      .toSorted((a, b) => this.#try(a).count - this.#try(b).count);
    for (const link of links.slice(0, best === undefined ? links.length : links.indexOf(best))) this.#tell(link);
    if (links.every((link) => this.#isOver(link))) throw this.#exhausted();
    return best;
  }

  get #attemptLimit(): number {
    return this.#options.budget?.attempts ?? this.#chain.config.attempts;
  }

  #mayAsk(link: Link): boolean {
    return !this.#isOver(link) && link.closedBecause === undefined && Date.now() >= this.#try(link).notBefore;
  }

  /** Whether it can't be asked any more in this call: what was spent stays spent. */
  #isOver(link: Link): boolean {
    return this.#try(link).over !== undefined || !this.#affordable(link);
  }

  /** Says once why a link is passed by that hasn't failed before. */
  #tell(link: Link): void {
    const tried = this.#try(link);
    const reason = this.#affordable(link) ? link.closedBecause : 'budget_exceeded';
    if (tried.told || tried.count > 0 || tried.over !== undefined || reason === undefined) return;
    tried.told = true;
    this.#reasons.push(`${link.name}: ${reason}`);
  }

  /** Whatever was and is asked, this link and its whole answer must fit. */
  #affordable(link: Link): boolean {
    const { bound, costMicros } = this.#asked;
    const prompts = [...this.#running, ...this.#charged].map((attempt) =>
      costOf({ ...bound, completionTokens: 0 }, attempt.link.prices),
    );
    const limit = this.#options.budget?.costMicros ?? costMicros;
    return prompts.reduce((sum, cost) => sum + cost, costOf(bound, link.prices)) <= limit;
  }

  /** Waits until some link may take a request. @throws ModelError when that would be too late */
  async #pause(): Promise<void> {
    const waits = this.#chain.links.flatMap((link) => {
      if (this.#isOver(link)) return [];
      return [Math.max(this.#try(link).notBefore - Date.now(), link.wait, link.probing ? look : 1)];
    });
    const wait = Math.min(...waits);
    if (performance.now() + wait >= this.#deadlineAt) throw this.#exhausted();
    await this.#sleep(wait);
  }

  /** Asks a link, and another one when the first takes unusually long; undefined when none of them answers. */
  async #race(link: Link): Promise<{ readonly attempt: Attempt; readonly first: ChatChunk } | undefined> {
    const racing = new Map<Attempt, Promise<Outcome>>();
    const enter = (next: Link) => {
      const attempt = new Attempt(next, this.#asked.ask, this.#controller.signal);
      racing.set(attempt, this.#begin(attempt));
      return attempt;
    };
    const primary = enter(link);
    const second = await this.#hedgeFor(link, racing.get(primary));
    if (second !== undefined) enter(second);
    while (racing.size > 0) {
      const outcome = await Promise.race(racing.values());
      racing.delete(outcome.attempt);
      this.#running.delete(outcome.attempt);
      if ('first' in outcome) {
        for (const loser of racing.keys()) this.#giveUp(loser);
        if (outcome.attempt !== primary && racing.size > 0) {
          this.#reasons.push(`${link.name}: hedged after ${Math.round(primary.waited)} ms`);
        }
        return outcome;
      }
      this.#failed(outcome.attempt, outcome.error);
    }
    return undefined;
  }

  async #begin(attempt: Attempt): Promise<Outcome> {
    const { link } = attempt;
    this.#attempts += 1;
    this.#try(link).count += 1;
    this.#running.add(attempt);
    try {
      const first = await link.begin(() => attempt.begin(Math.max(1, this.#deadlineAt - performance.now())));
      link.latency.add(attempt.waited);
      return { attempt, first };
    } catch (error) {
      return { attempt, error };
    }
  }

  /** The link to ask as well, after waiting for the first as long as it usually takes; undefined: none. */
  async #hedgeFor(link: Link, outcome: Promise<Outcome> | undefined): Promise<Link | undefined> {
    const { hedge } = this.#chain.config;
    if (hedge === undefined || link.latency.count < hedge.minimumSamples) return undefined;
    const delay = Math.max(hedge.minimumMs, link.latency.quantile(hedge.quantile) ?? 0);
    const waited = new AbortController();
    const early = await Promise.race([outcome, this.#sleep(delay, waited.signal)]);
    waited.abort();
    if (early !== undefined || this.#controller.signal.aborted) return undefined;
    if (this.#attempts >= this.#attemptLimit) return undefined;
    // Another provider first: what makes this one slow may make it slow again.
    const others = this.#chain.links.filter((other) => other !== link);
    const second = [...others, link].find((other) => this.#mayAsk(other));
    return second !== undefined && this.#chain.hedges.take() ? second : undefined;
  }

  /** Its first token came too late. */
  #giveUp(loser: Attempt): void {
    this.#running.delete(loser);
    // It would have taken at least as long: without it, the slowest would be missing among the measurements.
    loser.link.latency.add(loser.waited);
    this.#charged.push(loser);
    loser.cancel();
  }

  /** @throws what ends the whole call */
  #failed(attempt: Attempt, error: unknown): void {
    if (this.#controller.signal.aborted) this.#charged.push(attempt);
    this.#controller.signal.throwIfAborted();
    const { link } = attempt;
    const tried = this.#try(link);
    if (isTurnedAway(error)) {
      this.#attempts -= 1;
      tried.count -= 1;
      return;
    }
    if (!(error instanceof ModelError)) throw error;
    link.note(error);
    this.#reasons.push(`${link.name}: ${error.code}${error.status === undefined ? '' : ` (${error.status})`}`);
    if (charged.has(error.code)) this.#charged.push(attempt);
    if (error.code === 'timeout') link.latency.add(attempt.waited);
    if (error.code === 'invalid_request') throw error;
    if (final.has(error.code)) tried.over = error;
    const pause = Math.min(longestPause, firstPause * 2 ** (tried.count - 1)) * (0.5 + Math.random());
    tried.notBefore = Date.now() + pause;
    this.#lastError = error;
  }

  /** Nobody could answer: the one reason where there is only one. */
  #exhausted(): ModelError {
    const { name, links } = this.#chain;
    const overs = links.map((link) => this.#try(link).over);
    const allOver = links.every((link) => this.#isOver(link));
    const tooLong = overs.find((over) => over?.code === 'context_length_exceeded');
    if (tooLong !== undefined && allOver) return tooLong;
    if (this.#lastError !== undefined && this.#reasons.length === 1) return this.#lastError;
    const reasons = this.#reasons.join('; ');
    if (this.#lastError === undefined && allOver) {
      const limit = this.#options.budget?.costMicros ?? this.#asked.costMicros;
      return new ModelError('budget_exceeded', `${name}: an answer may cost more than the ${limit} micros that it may`);
    }
    const retryAfterMs = Math.min(...links.map((link) => link.wait));
    const limited = links.every((link) => link.closedBecause === 'rate_limited' || this.#isOver(link));
    const code = limited && !allOver ? 'rate_limited' : 'exhausted';
    return new ModelError(code, `${name}: no provider answers: ${reasons}`, { retryAfterMs, cause: this.#lastError });
  }

  /** The error that the caller sees. */
  #failure(error: unknown): unknown {
    const { signal } = this.#controller;
    if (signal.aborted && error === signal.reason && !(error instanceof ModelError)) return error;
    if (!(error instanceof ModelError)) return error;
    if (this.#answering !== undefined) {
      this.#answering.link.note(error);
      this.#reasons.push(`${this.#answering.link.name}: ${error.code}`);
    }
    const { code, message, provider, status, retryAfterMs, cause } = error;
    const { costMicros, reasons } = this.spent;
    return new ModelError(code, message, { provider, status, retryAfterMs, reasons, costMicros, cause });
  }

  /** Nothing runs after it. */
  #end(): void {
    clearTimeout(this.#deadline);
    this.#options.signal.removeEventListener('abort', this.#cancel);
    for (const attempt of this.#running) this.#giveUp(attempt);
    this.#answering?.cancel();
  }

  #try(link: Link): Try {
    const tried = this.#tries.get(link);
    if (tried === undefined) throw new Error(`${link.name} is not in the chain ${this.#chain.name}`);
    return tried;
  }

  /** Ends early, without an error, with the call or with `other`. */
  async #sleep(milliseconds: number, other?: AbortSignal): Promise<undefined> {
    const { signal } = this.#controller;
    const either = other === undefined ? signal : AbortSignal.any([signal, other]);
    await sleep(milliseconds, undefined, { signal: either }).catch(() => undefined);
  }

  #since(): number {
    return Math.round((performance.now() - this.#startedAt) * 10) / 10;
  }
}
