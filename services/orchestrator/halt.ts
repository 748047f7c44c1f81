import { event } from '@somagent/events';
import { type ControlSnapshot, type ControlState, type Logger, messageOf, type OutboxEvent } from '@somagent/kit';
import { system } from './session-events.ts';

/** Why a generation must stop. */
export type StopReason = 'halted' | 'suspended';

/** Whose work a generation is. */
export interface Worker {
  readonly tenant: string;
  /** On whose behalf. */
  readonly subject: string;
}

/** A generation that runs. */
export interface Run {
  /** Aborts when the work must stop; its reason is a {@link StopReason}. */
  readonly signal: AbortSignal;
  /** Call when it has stopped. */
  end(): void;
}

/** The part of {@link ControlState} that is asked here. */
export type Control = Pick<ControlState, 'halted' | 'suspended' | 'onChange'>;

/** Options of {@link HaltSwitch}. */
export interface HaltSwitchOptions {
  readonly control: Control;
  /** Stores events: what was halted is on record. */
  readonly record: (events: readonly OutboxEvent[]) => Promise<void>;
  readonly log: Logger;
}

interface Running extends Worker {
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

/** What a halt or its end concerns: everything, or one tenant. */
type Scope = { readonly scope: 'all'; readonly tenant: null } | { readonly scope: 'tenant'; readonly tenant: string };

/** Stops the generations of whoever is halted or suspended, as soon as the control state says so. */
export class HaltSwitch {
  readonly #options: HaltSwitchOptions;
  readonly #running = new Set<Running>();
  /** Turns that a halt keeps from going on, by tenant. */
  readonly #waiting = new Map<string, Set<string>>();
  #close: () => void = () => undefined;

  constructor(options: HaltSwitchOptions) {
    this.#options = options;
  }

  /** Follows the control state until {@link stop}. */
  start(): void {
    this.#close = this.#options.control.onChange((now, before) => this.#changed(now, before));
  }

  stop(): void {
    this.#close();
  }

  /** Generations that run. */
  get running(): number {
    return this.#running.size;
  }

  /** Turns of a tenant that wait for the end of a halt. */
  waiting(tenant: string): number {
    return this.#waiting.get(tenant)?.size ?? 0;
  }

  /** Why work must not begin; undefined when it may. */
  reasonAgainst({ tenant, subject }: Worker): StopReason | undefined {
    if (this.#options.control.halted(tenant)) return 'halted';
    return this.#options.control.suspended(tenant, subject) === null ? undefined : 'suspended';
  }

  /** Registers a generation. */
  begin(worker: Worker): Run {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const running = { ...worker, abort: new AbortController(), ended };
    this.#running.add(running);
    // A change between the question whether it may begin and this line is not missed.
    this.#check(running);
    return {
      signal: running.abort.signal,
      end: () => {
        this.#running.delete(running);
        resolve();
      },
    };
  }

  /**
   * Notes that a turn waits until it may go on, or no longer does.
   * @returns whether that is news
   */
  noteWaiting(tenant: string, turnId: string, waits: boolean): boolean {
    const turns = this.#waiting.get(tenant) ?? new Set();
    if (turns.has(turnId) === waits) return false;
    if (waits) this.#waiting.set(tenant, turns.add(turnId));
    else turns.delete(turnId);
    return true;
  }

  #check(running: Running): void {
    const reason = this.reasonAgainst(running);
    if (reason !== undefined) running.abort.abort(reason);
  }

  #changed(now: ControlSnapshot, before: ControlSnapshot | undefined): void {
    const since = performance.now();
    const stopped = [...this.#running];
    for (const running of stopped) this.#check(running);
    const aborted = stopped.filter(({ abort }) => abort.signal.aborted);
    for (const scope of scopesOf(now, before)) void this.#reportHalt(scope, aborted, since);
    if (before !== undefined) for (const scope of scopesOf(before, now)) void this.#reportResume(scope);
  }

  async #reportHalt(scope: Scope, aborted: readonly Running[], since: number): Promise<void> {
    const mine = aborted.filter(({ tenant }) => scope.tenant === null || tenant === scope.tenant);
    await Promise.all(mine.map(({ ended }) => ended));
    await this.#report('agents.halted', scope, mine.length, performance.now() - since);
  }

  async #reportResume(scope: Scope): Promise<void> {
    const waiting =
      scope.tenant === null ? [...this.#waiting.values()] : [this.#waiting.get(scope.tenant) ?? new Set()];
    const sessions = waiting.reduce((sum, turns) => sum + turns.size, 0);
    await this.#report('agents.resumed', scope, sessions, 0);
  }

  async #report(
    type: 'agents.halted' | 'agents.resumed',
    { scope, tenant }: Scope,
    sessions: number,
    elapsed: number,
  ): Promise<void> {
    const milliseconds = Math.round(elapsed * 10) / 10;
    this.#options.log.warn({ tenant, scope, sessions, milliseconds }, type);
    const data = { scope, sessions, milliseconds };
    try {
      await this.#options.record([event('audit.control', type, { tenant, actor: system, data })]);
    } catch (error) {
      this.#options.log.error({ tenant, scope, reason: messageOf(error) }, `${type} could not be recorded`);
    }
  }
}

/** What is halted in the first snapshot and was not in the second. */
function scopesOf(now: ControlSnapshot, before: ControlSnapshot | undefined): Scope[] {
  const known = new Set(before?.halted.tenants);
  const tenants = now.halted.tenants.filter((tenant) => !known.has(tenant));
  const all = now.halted.all && !before?.halted.all;
  return [
    ...(all ? [{ scope: 'all', tenant: null } as const] : []),
    ...tenants.map((tenant) => ({ scope: 'tenant', tenant }) as const),
  ];
}
