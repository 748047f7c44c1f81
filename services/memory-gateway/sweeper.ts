import { type Logger, reasonOf } from '@somagent/kit';
import { sql } from 'kysely';
import type { Database } from './database.ts';
import type { Forgetter } from './forget.ts';
import { ownWork } from './memory-events.ts';

/** Options of {@link Sweeper}. */
export interface SweeperOptions {
  readonly database: Database;
  readonly forgetter: Pick<Forgetter, 'expire'>;
  readonly log: Logger;
  /** Time between two looks, milliseconds. */
  readonly interval: number;
  /** How long the id of a forgotten memory is kept, days. @default 30 */
  readonly rememberedDays?: number;
}

/** Deletes memories whose time is over. Any number may run: what one deletes, the others do not find. */
export class Sweeper {
  readonly #options: SweeperOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#running = this.#running.then(() => this.#look());
    }, this.#options.interval);
  }

  /** Ends after the look under way. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }

  /** Looks once. @returns how many memories were deleted */
  async sweep(): Promise<number> {
    const { database, forgetter, log, rememberedDays = 30 } = this.#options;
    const { rows } = await sql<{ tenant: string }>`
      select distinct tenant from memory where expires_at <= clock_timestamp()`.execute(database.platform);
    let expired = 0;
    for (const { tenant } of rows) expired += await forgetter.expire(tenant, ownWork('sweeper'));
    await sql`
      delete from forgotten
      where forgotten_at < clock_timestamp() - make_interval(days => ${rememberedDays}) and wiped_at is not null`.execute(
      database.platform,
    );
    if (expired > 0) log.info({ expired }, 'memories have expired');
    return expired;
  }

  async #look(): Promise<void> {
    try {
      await this.sweep();
    } catch (error) {
      this.#options.log.warn({ reason: reasonOf(error) }, 'expired memories could not be deleted: tried again later');
    }
  }
}
