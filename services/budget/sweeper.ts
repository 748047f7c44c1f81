import { type Logger, messageOf } from '@somagent/kit';
import { type QueryExecutorProvider, sql } from 'kysely';
import { takeBack } from './budget.ts';

/** Options of {@link BudgetSweeper}. */
export interface BudgetSweeperOptions {
  /** The rows of every tenant: `database.platform` of the owner of the tables. */
  readonly rows: QueryExecutorProvider;
  readonly log: Logger;
  /** Milliseconds between two rounds. @default 10000 */
  readonly interval?: number;
}

/** Ended reservations stay this long, so that a repeated settlement is recognized; uses of past periods for 400 days. */
const keep = { reservation: '1 day', use: '400 days' } as const;

/** Returns every expired reservation of these rows. @returns how many there were */
export async function returnExpired(rows: QueryExecutorProvider, batch = 500): Promise<number> {
  let sum = 0;
  for (;;) {
    const count = await takeBack(rows, batch);
    sum += count;
    if (count < batch) return sum;
  }
}

/** Returns expired reservations of every tenant, and forgets those that ended long ago. Any number may run. */
export class BudgetSweeper {
  readonly #options: BudgetSweeperOptions;
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: BudgetSweeperOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#stopped) return;
    const next = () => {
      this.#round = this.#sweep().then(() => this.start());
    };
    this.#timer = setTimeout(next, this.#options.interval ?? 10_000);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#round;
  }

  async #sweep(): Promise<void> {
    const { rows, log } = this.#options;
    try {
      const returned = await returnExpired(rows);
      if (returned > 0) log.warn({ returned }, 'reservations of budgets have expired: their requests were never ended');
      await forget(rows);
    } catch (error) {
      log.warn({ reason: messageOf(error) }, 'expired reservations of budgets cannot be returned at the moment');
    }
  }
}

async function forget(rows: QueryExecutorProvider): Promise<void> {
  await sql`
    delete from budget_reservation where state <> 'held' and expires_at < clock_timestamp() - ${keep.reservation}::interval`.execute(
    rows,
  );
  await sql`
    delete from budget_use where period <> 'total' and starts_at < clock_timestamp() - ${keep.use}::interval
      and held_tokens = 0 and held_micros = 0`.execute(rows);
}
