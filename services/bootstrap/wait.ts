import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, Failure, messageOf } from './failure.ts';
import { log } from './log.ts';

export interface Dependency {
  /** What is waited for, as people call it: `Postgres`. */
  readonly name: string;
  /** Where it is: `host:port` or a URL. */
  readonly address: string;
  /** What to do when it never answers. */
  readonly fix: string;
}

export interface WaitOptions {
  readonly seconds: number;
  /** Errors that waiting will not mend (a wrong password): they end the wait at once. */
  readonly isFinal?: (error: unknown) => boolean;
}

const firstPauseMs = 200;
const longestPauseMs = 3000;
const reportEveryMs = 10_000;

/**
 * Repeats an attempt until it succeeds or the deadline passes.
 * @throws Failure with the dependency, its address, the last error and the fix.
 */
export async function waitFor<T>(dependency: Dependency, attempt: () => Promise<T>, options: WaitOptions): Promise<T> {
  const started = Date.now();
  let reported = started;
  for (let pause = firstPauseMs; ; pause = Math.min(pause * 2, longestPauseMs)) {
    try {
      return await attempt();
    } catch (error) {
      const elapsed = Date.now() - started;
      const final = error instanceof Failure || (options.isFinal?.(error) ?? false);
      if (error instanceof Failure) throw error;
      if (final || elapsed + pause > options.seconds * 1000) throw unreachable(dependency, elapsed, error, final);
      if (Date.now() - reported > reportEveryMs) {
        reported = Date.now();
        log.info(`waiting for ${dependency.name}`, { address: dependency.address, reason: messageOf(error) });
      }
    }
    await sleep(pause);
  }
}

function unreachable(dependency: Dependency, elapsedMs: number, error: unknown, final: boolean): Failure {
  const code = codeOf(error);
  const reason = code === undefined ? messageOf(error) : `${messageOf(error)} (${code})`;
  const what = final ? 'refused' : `did not answer within ${Math.round(elapsedMs / 1000)} s`;
  return new Failure(`${dependency.name} at ${dependency.address} ${what}: ${reason}`, dependency.fix, {
    cause: error,
  });
}
