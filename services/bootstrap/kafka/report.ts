import { type LogFields, log } from '../log.ts';

/** Counts of what one run found and did. */
export interface Counts {
  created: number;
  /** What existed and differed from the plan. */
  repaired: number;
  /** What existed and is in no plan. */
  removed: number;
  unchanged: number;
}

/** Says each difference in one line, and counts. */
export class Report {
  readonly counts: Counts = { created: 0, repaired: 0, removed: 0, unchanged: 0 };

  created(what: string, fields: LogFields): void {
    this.counts.created += 1;
    log.info(`${what} created`, fields);
  }

  repaired(what: string, fields: LogFields): void {
    this.counts.repaired += 1;
    log.warn(`drift repaired: ${what}`, fields);
  }

  removed(what: string, fields: LogFields): void {
    this.counts.removed += 1;
    log.warn(`drift repaired: ${what} is in no plan and was removed`, fields);
  }

  unchanged(): void {
    this.counts.unchanged += 1;
  }
}
