import { setTimeout as sleep } from 'node:timers/promises';
import { type Logger, reasonOf } from '@somagent/kit';
import { blank, decide, type Memory, type ScalingRules, type Signals } from './decide.ts';
import type { DeploymentScale } from './deployment.ts';

/** Options of {@link Scaler}. */
export interface ScalerOptions {
  readonly scale: DeploymentScale;
  /** Where the signals come from; a source that throws gives none. */
  readonly sources: {
    readonly backlog: () => Promise<NonNullable<Signals['backlog']>>;
    readonly model: () => Promise<NonNullable<Signals['model']>>;
  };
  readonly rules: ScalingRules;
  /** Time between two looks, milliseconds. */
  readonly interval: number;
  readonly log: Logger;
}

/** One look at the signals and what followed. */
export interface Look {
  /** ISO 8601. */
  readonly time: string;
  readonly signals: Signals;
  /** Replicas that were asked for before, that there were, and that are asked for now. */
  readonly before: number;
  readonly present: number;
  readonly replicas: number;
  readonly reason: string;
}

/** Keeps one Deployment as large as its work asks for. Two of them do no harm: the API server refuses the slower one. */
export class Scaler {
  readonly #options: ScalerOptions;
  readonly #stopped = new AbortController();
  #memory: Memory = blank;
  #last: Look | undefined;
  #failure: string | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ScalerOptions) {
    this.#options = options;
  }

  /** The last look; undefined before the first. */
  get last(): Look | undefined {
    return this.#last;
  }

  /** For a readiness check. @throws Error when the Deployment can't be read or written. */
  async check(): Promise<void> {
    if (this.#failure !== undefined) throw new Error(this.#failure);
    if (this.#last === undefined) throw new Error('nothing has been looked at yet');
  }

  /** Looks until {@link stop}; returns at once. */
  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  /** One look. @throws Error when the Deployment can't be read or written. */
  async look(): Promise<Look> {
    const { scale, sources, rules, log } = this.#options;
    const [current, backlog, model] = await Promise.all([
      scale.read(),
      this.#signal('backlog', sources.backlog),
      this.#signal('model', sources.model),
    ]);
    const signals = { backlog, model };
    const { replicas, reason, memory } = decide(current.wanted, signals, rules, this.#memory, performance.now());
    const look: Look = {
      time: new Date().toISOString(),
      ...{ signals, replicas, reason, before: current.wanted, present: current.present },
    };
    if (replicas !== current.wanted) {
      await scale.write(replicas, current);
      log.info({ from: current.wanted, to: replicas, reason, ...signals }, 'scaled');
    }
    // Only what was done is remembered.
    this.#memory = memory;
    this.#last = look;
    return look;
  }

  async #run(): Promise<void> {
    const { interval, log } = this.#options;
    while (!this.#stopped.signal.aborted) {
      const failure = await this.look().then(() => undefined, reasonOf);
      if (failure !== undefined && failure !== this.#failure)
        log.warn({ reason: failure }, 'the Deployment stays as it is');
      this.#failure = failure;
      await sleep(interval, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
    }
  }

  async #signal<Value>(name: string, read: () => Promise<Value>): Promise<Value | null> {
    try {
      return await read();
    } catch (error) {
      this.#options.log.warn({ signal: name, reason: reasonOf(error) }, 'a signal is missing: nothing goes down');
      return null;
    }
  }
}
