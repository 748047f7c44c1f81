import { type Logger, messageOf } from '@somagent/kit';
import { sql } from 'kysely';
import type { Database } from './database.ts';
import type { Reconciliation } from './reconciliation.ts';
import type { Revocations } from './revocations.ts';
import type { Training } from './training.ts';

/** What the maintenance works with. */
export interface MaintenanceParts {
  readonly db: Database;
  readonly training: Training;
  readonly revocations: Revocations;
  readonly reconciliation: Reconciliation;
  readonly log: Logger;
  /** Time between two rounds, milliseconds. @default 30000 */
  readonly interval?: number;
  /** Time between two comparisons with Keycloak, milliseconds. @default 300000 */
  readonly reconcileEvery?: number;
}

/** Key of the advisory lock that lets one replica at a time compare with Keycloak. */
const lock = 0x69647265;

/** What has to happen without anybody asking: proposals run out, revocations are forgotten, differences are repaired. */
export class Maintenance {
  readonly #parts: MaintenanceParts;
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> = Promise.resolve();
  #stopped = false;
  #reconciledAt = Number.NEGATIVE_INFINITY;

  constructor(parts: MaintenanceParts) {
    this.#parts = parts;
  }

  /** Begins with a round at once. */
  start(): void {
    this.#round = this.#run();
  }

  /** Ends after the round under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#round;
  }

  async #run(): Promise<void> {
    const { training, revocations, log, interval = 30_000 } = this.#parts;
    try {
      await training.expireAll();
      await revocations.prune();
      await this.#reconcile();
    } catch (error) {
      log.warn({ reason: messageOf(error) }, 'a round of maintenance failed, the next one tries again');
    }
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.start(), interval);
    this.#timer.unref();
  }

  async #reconcile(): Promise<void> {
    const { db, reconciliation, reconcileEvery = 300_000 } = this.#parts;
    if (performance.now() - this.#reconciledAt < reconcileEvery) return;
    await db.platform.transaction().execute(async (rows) => {
      const { rows: answer } = await sql<{ mine: boolean }>`select pg_try_advisory_xact_lock(${lock}) as mine`.execute(
        rows,
      );
      if (answer[0]?.mine) await reconciliation.repair();
    });
    this.#reconciledAt = performance.now();
  }
}
