import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { BudgetBatches, BudgetLeases, type BudgetRequest, type Confirmation, type Refusal } from '@somagent/budget';
import { type EventData, event, type OutgoingEvent } from '@somagent/events';
import { type Caller, Problem, tenantOrNull } from '@somagent/governance';
import { appendEvents, type Logger, messageOf } from '@somagent/kit';
import type { Estimate } from '@somagent/models';
import type { QueryExecutorProvider } from 'kysely';
import type { Attribution } from './attribution.ts';
import { budgetExceeded } from './openai-problems.ts';

/** What {@link Spending} works with. */
export interface SpendingOptions {
  /** A TenantDatabase with the tables of budgets and an outbox. */
  readonly database: { of(tenant: string): QueryExecutorProvider };
  readonly log: Logger;
  /** Time after which a reservation returns by itself, seconds: longer than any request. */
  readonly seconds: number;
  /** Whether recalls of leases are heard at the moment; {@link Spending.recalled} is to be called then. @default never */
  readonly hears?: () => boolean;
}

/** A request of a model. */
export interface Work extends Attribution {
  readonly requestId: string;
  readonly caller: Caller;
  readonly model: string;
  readonly lane: 'interactive' | 'batch';
  /** Upper bound. */
  readonly most: Estimate;
}

/** How it ended. */
export interface Ending {
  readonly outcome: 'completed' | 'cancelled' | 'failed' | 'refused';
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly costMicros: number;
  readonly provider: string | null;
  readonly reasons: readonly string[];
  /** Milliseconds. */
  readonly queue: number | null;
  readonly firstToken: number | null;
  readonly model: number;
  readonly total: number;
}

type UsageData = EventData<'usage.tokens', 'tokens.used'>;

const nothing = { promptTokens: 0, completionTokens: 0, costMicros: 0, provider: null } as const;
/** Longest time that a request waits for the settlements of others before it is refused, milliseconds. */
const settling = 2000;
const noTime = { queue: null, firstToken: null, model: 0, total: 0 } as const;

/**
 * The cost hard stop: what a request may use at most is reserved before it runs, and settled with what it has used in
 * the statement that stores its usage event. Room that was leased in advance is reserved while a model that costs nothing
 * begins: nobody sees of the answer before that is stored. No answer waits for its settlement: until that is stored, the reservation
 * keeps the room for the most. A request whose process is killed has left its event with the reservation, so that there
 * is exactly one for every answer of which anything was seen.
 */
export class Spending {
  readonly #options: SpendingOptions;
  readonly #budgets: BudgetBatches;
  readonly #leases: BudgetLeases;
  /** Settlements that are on their way, by tenant. */
  readonly #open = new Map<string, Set<Promise<void>>>();

  constructor(options: SpendingOptions) {
    this.#options = options;
    this.#budgets = new BudgetBatches(options);
    this.#leases = new BudgetLeases({ ...options, exact: this.#budgets, hears: options.hears ?? (() => false) });
  }

  /** @throws Problem budget-exceeded, before anything has run */
  async begin(work: Work): Promise<Spent> {
    const request = requestOf(work);
    const options = () => ({ seconds: this.#options.seconds, unsettled: lostEvent(work) });
    const drawn = this.#leases.draw(request, options);
    if (drawn !== undefined) {
      const granted = this.#granted(work, drawn);
      // A provider charges for what it has begun, whoever sees it: what it sends a bill for is confirmed first.
      if (work.most.billed) await granted;
      return this.#spent(work, work.most.billed ? undefined : granted);
    }
    const ask = () => this.#budgets.reserve(request, options());
    const first = await ask();
    // What answers of this process have not used may be missing only because it is on its way.
    await this.#granted(work, !first.granted && (await this.#returned(work.caller.tenant)) ? await ask() : first);
    return this.#spent(work, undefined);
  }

  /** To be called when the leases of a tenant were recalled, or (without one) when that may have been missed. */
  recalled(tenant?: string): void {
    this.#leases.recalled(tenant);
  }

  /** Resolves when every settlement is stored, and what was leased is given back. */
  async flush(): Promise<void> {
    await Promise.all([...this.#open.values()].flatMap((settlements) => [...settlements]));
    await this.#leases.giveBack();
  }

  /** @throws Problem budget-exceeded, when that is told */
  async #granted(work: Work, answered: Confirmation | Promise<Confirmation>): Promise<void> {
    const answer = await answered;
    if (answer.granted) return;
    await appendEvents(this.#options.database.of(work.caller.tenant), [
      usageEvent(work, { ...nothing, ...noTime, outcome: 'refused', reasons: [answer.message] }),
    ]);
    throw refusalOf(answer);
  }

  #spent(work: Work, granted: Promise<void> | undefined): Spent {
    const end = (ending: Ending) => this.#end(work, granted, ending);
    if (granted === undefined) return { granted, refused: undefined, end };
    const refused = new AbortController();
    granted.catch((error: unknown) => refused.abort(error));
    return { granted, refused: refused.signal, end };
  }

  /** Waits for the settlements of a tenant, not longer than a moment. @returns whether there were any */
  async #returned(tenant: string): Promise<boolean> {
    const settlements = this.#open.get(tenant);
    if (settlements === undefined) return false;
    await Promise.race([Promise.all(settlements), sleep(settling, undefined, { ref: false })]);
    return true;
  }

  #end(work: Work, granted: Promise<void> | undefined, ending: Ending): void {
    const { tenant } = work.caller;
    const open = this.#open.get(tenant) ?? new Set();
    const settled = this.#settle(work, granted, ending).finally(() => {
      open.delete(settled);
      if (open.size === 0) this.#open.delete(tenant);
    });
    this.#open.set(tenant, open.add(settled));
  }

  /** Tries until the reservation has run out anyway. What was refused after all has no reservation, and was told. */
  async #settle(work: Work, granted: Promise<void> | undefined, ending: Ending): Promise<void> {
    const { log, seconds } = this.#options;
    if (granted !== undefined && !(await succeeds(granted))) return;
    // The last piece of the answer goes first.
    await nextTurn();
    const { requestId, most } = work;
    const actual = { tokens: ending.promptTokens + ending.completionTokens, costMicros: ending.costMicros };
    const events = [usageEvent(work, ending)];
    const until = performance.now() + seconds * 1000;
    for (let pause = 50; performance.now() < until; pause = Math.min(pause * 2, 2000)) {
      try {
        const outcome = await this.#budgets.settle(requestOf(work), actual, events);
        if (outcome === 'late' || outcome === 'unknown')
          log.error({ requestId, outcome }, 'a request was settled too late');
        if (actual.tokens > most.tokens || actual.costMicros > most.costMicros) {
          log.error({ requestId, model: work.model, most, actual }, 'a request has used more than was reserved');
        }
        return;
      } catch (error) {
        log.warn({ requestId, reason: messageOf(error) }, 'the use of a request cannot be stored at the moment');
        await sleep(pause);
      }
    }
    log.error({ requestId, actual }, 'the use of a request was not stored: its reservation tells of it');
  }
}

const succeeds = (promise: Promise<unknown>): Promise<boolean> =>
  promise.then(
    () => true,
    () => false,
  );

/** A request that runs. */
export interface Spent {
  /**
   * Absent where the reservation is stored. Else nobody may see anything of the answer before it resolves; it rejects
   * with the Problem of a request that is refused after all, because what was leased had been recalled.
   */
  readonly granted: Promise<void> | undefined;
  /** Aborts with what {@link granted} rejects with. */
  readonly refused: AbortSignal | undefined;
  /** To be called once, whichever way it ended. It is stored in the background. */
  end(ending: Ending): void;
}

const requestOf = ({ caller, team, persona, sessionId, requestId, most }: Work): BudgetRequest => ({
  ...{ tenant: caller.tenant, team, persona, sessionId, requestId },
  ...most,
});

const lostEvent = (work: Work): OutgoingEvent =>
  usageEvent(work, {
    ...{ ...nothing, ...noTime, outcome: 'failed' },
    reasons: ['the process of the gateway ended before it was counted'],
  });

function usageEvent(work: Work, ending: Ending): OutgoingEvent {
  const { requestId, caller, sessionId, team, persona, model: modelName, lane } = work;
  const { queue, firstToken, model, total, reasons, ...counted } = ending;
  const data: UsageData = {
    ...{ sessionId, turnId: null, subject: caller.subject, persona, team, modelName, lane, ...counted },
    ...{ queue, firstToken, model, total, platform: Math.max(0, total - model), reasons: [...reasons] },
  };
  const actor = { kind: caller.kind, id: caller.subject, client: caller.client };
  return event('usage.tokens', 'tokens.used', { tenant: tenantOrNull(caller.tenant), actor, requestId, data });
}

function refusalOf({ message, renewsAt }: Refusal): Problem {
  const seconds = renewsAt === null ? undefined : Math.max(1, Math.ceil((renewsAt.getTime() - Date.now()) / 1000));
  return new Problem(budgetExceeded, message, seconds === undefined ? {} : { 'retry-after': String(seconds) });
}
