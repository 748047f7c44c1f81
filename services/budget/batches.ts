import { setTimeout as sleep } from 'node:timers/promises';
import type { OutboxEvent } from '@somagent/kit/outbox.ts';
import type { QueryExecutorProvider } from 'kysely';
import {
  type Actual,
  type Asked,
  answerOf,
  type BudgetRequest,
  type Ended,
  endAll,
  type Outcome,
  type Refusal,
  type Reservation,
  type ReserveOptions,
  type ReserveRow,
  requireBounds,
  reserveAll,
} from './budget.ts';

/** Options of {@link BudgetBatches}. */
export interface BudgetBatchesOptions {
  /** A TenantDatabase with the tables of budgets and an outbox. */
  readonly database: { of(tenant: string): QueryExecutorProvider };
  /** Settlements of so many milliseconds are stored together; reservations never wait for others to come. @default 10 */
  readonly linger?: number;
}

/** The most of one statement. */
const largestBatch = 64;

/**
 * Reservations and settlements of a process with few commits: those that come for the same budgets while one commits
 * go together with the next. Each is as exact as one by itself, because a batch is the same functions one after the
 * other in one transaction. Only requests with the same team, persona and session share a batch: they lock the same
 * rows, so that two batches can't wait for each other.
 */
export class BudgetBatches {
  readonly #database: BudgetBatchesOptions['database'];
  readonly #linger: number;
  readonly #reserving = new Map<string, Batches<Asked, ReserveRow>>();
  readonly #ending = new Map<string, Batches<Ended, Outcome>>();

  constructor({ database, linger = 10 }: BudgetBatchesOptions) {
    this.#database = database;
    this.#linger = linger;
  }

  /** See `reserve`. @throws RangeError, Error */
  async reserve(request: BudgetRequest, options: ReserveOptions = {}): Promise<Reservation | Refusal> {
    requireBounds(request);
    const { tenant } = request;
    const run = (asked: readonly Asked[]) => reserveAll(this.#database.of(tenant), asked);
    return answerOf(await batchesOf(this.#reserving, request, 0, run).add({ request, options }), request);
  }

  /** See `settle`. @throws RangeError, Error */
  async settle(request: BudgetRequest, actual: Actual, events: readonly OutboxEvent[]): Promise<Outcome> {
    requireBounds(actual);
    const { tenant, requestId } = request;
    const run = (ended: readonly Ended[]) => endAll(this.#database.of(tenant), tenant, ended);
    const batches = batchesOf(this.#ending, request, this.#linger, run);
    return batches.add({ requestId, state: 'settled', actual, events });
  }
}

/** The same for requests that lock the same rows. */
export const lineOf = ({ tenant, team, persona, sessionId }: BudgetRequest): string =>
  JSON.stringify([tenant, team, persona, sessionId]);

function batchesOf<Item, Result>(
  known: Map<string, Batches<Item, Result>>,
  request: BudgetRequest,
  linger: number,
  run: Run<Item, Result>,
): Batches<Item, Result> {
  const key = lineOf(request);
  const found = known.get(key);
  if (found !== undefined) return found;
  const made = new Batches(run, linger, () => known.delete(key));
  known.set(key, made);
  return made;
}

type Run<Item, Result> = (items: readonly Item[]) => Promise<readonly Result[]>;

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

/** One batch at a time; what comes meanwhile is the next one. */
export class Batches<Item, Result> {
  readonly #run: Run<Item, Result>;
  readonly #linger: number;
  readonly #empty: () => void;
  #waiting: Waiting<Item, Result>[] = [];
  #runs = false;

  /** @param empty called when nothing runs and nothing waits any more */
  constructor(run: Run<Item, Result>, linger: number, empty: () => void) {
    this.#run = run;
    this.#linger = linger;
    this.#empty = empty;
  }

  add(item: Item): Promise<Result> {
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#waiting.push({ item, resolve, reject });
    if (!this.#runs) void this.#drain();
    return promise;
  }

  async #drain(): Promise<void> {
    this.#runs = true;
    while (this.#waiting.length > 0) {
      if (this.#linger > 0 && this.#waiting.length < largestBatch) await sleep(this.#linger);
      await this.#next(this.#waiting.splice(0, largestBatch));
    }
    this.#runs = false;
    this.#empty();
  }

  async #next(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    const items = batch.map(({ item }) => item);
    try {
      const results = await this.#run(items).catch((error: unknown) => {
        if (!isDeadlock(error)) throw error;
        return this.#run(items);
      });
      if (results.length !== items.length)
        throw new Error(`${results.length} answers came for ${items.length} requests`);
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result);
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}

/** A budget that was set between two requests of a batch can turn the order of locks; Postgres undoes one of both. */
const isDeadlock = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === '40P01';
