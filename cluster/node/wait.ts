import { setTimeout as sleep } from 'node:timers/promises';

/** What is waited for, and how long. */
export interface Wait {
  /** Completes the sentence "… did not happen in 30 s". */
  readonly what: string;
  /** Milliseconds. */
  readonly deadline: number;
  /** Why it may not have happened and what to do; asked only when it did not. */
  readonly cause?: () => string | Promise<string>;
  /**
   * Milliseconds between two looks.
   * @default 50
   */
  readonly interval?: number;
}

/** Looks until something is there. Throws an error that says what, how long and why. */
export async function waitFor<T>(look: () => Promise<T | undefined | false>, wait: Wait): Promise<T> {
  const end = performance.now() + wait.deadline;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() > end) break;
    await sleep(wait.interval ?? 50);
  }
  const cause = await wait.cause?.();
  throw new Error(`${wait.what}: not in ${wait.deadline / 1000} s${cause ? `\n${cause}` : ''}`);
}
