import type { Explanation } from './explain.ts';

/** What a runner tells while it works. Every line says how many seconds have passed. */
export interface Reporter {
  line(text: string): void;
}

/** Writes to a stream, with the seconds since its creation in front. */
export class StreamReporter implements Reporter {
  readonly #stream: NodeJS.WritableStream;
  readonly #start = performance.now();

  constructor(stream: NodeJS.WritableStream = process.stderr) {
    this.#stream = stream;
  }

  line(text: string): void {
    const seconds = ((performance.now() - this.#start) / 1000).toFixed(1);
    this.#stream.write(`[${seconds.padStart(6)} s] ${text}\n`);
  }
}

/** Progress of the components of one run: how many of their objects are done, and when the last one is. */
export class ComponentProgress {
  readonly #reporter: Reporter;
  readonly #left = new Map<string, number>();
  readonly #total = new Map<string, number>();
  readonly #started = new Map<string, number>();
  readonly #said = new Map<string, number>();

  constructor(reporter: Reporter, components: Iterable<string>) {
    this.#reporter = reporter;
    for (const component of components) this.#total.set(component, (this.#total.get(component) ?? 0) + 1);
    for (const [component, total] of this.#total) this.#left.set(component, total);
  }

  begin(component: string): void {
    if (this.#started.has(component)) return;
    this.#started.set(component, performance.now());
  }

  done(component: string): void {
    const left = (this.#left.get(component) ?? 1) - 1;
    this.#left.set(component, left);
    if (left > 0) return;
    const seconds = ((performance.now() - (this.#started.get(component) ?? performance.now())) / 1000).toFixed(1);
    const finished = [...this.#left.values()].filter((rest) => rest === 0).length;
    const objects = this.#total.get(component) ?? 0;
    this.#reporter.line(
      `${component}: ready, ${objects} object${objects === 1 ? '' : 's'} in ${seconds} s (${finished} of ${this.#total.size} components)`,
    );
  }

  /** The same news twice within half a minute is no news. */
  waiting(component: string, what: string): void {
    const line = `${component}: ${what}`;
    if (performance.now() - (this.#said.get(line) ?? Number.NEGATIVE_INFINITY) < 30_000) return;
    this.#said.set(line, performance.now());
    this.#reporter.line(`${component}: waiting for ${what}`);
  }

  /** Components of which something was never done. */
  unfinished(): readonly string[] {
    return [...this.#left].flatMap(([component, left]) => (left > 0 ? [component] : []));
  }
}

/** Cause and fix as a person reads them. */
export function formatExplanation({ object, cause, fix }: Explanation): string {
  return `${object}\n    cause: ${cause}\n    fix:   ${fix}`;
}
