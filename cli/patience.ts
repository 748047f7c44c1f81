import { setTimeout as sleep } from 'node:timers/promises';

/** How long a failure that may pass is waited for, seconds: Keycloak and its database need that to fail over. */
const defaultSeconds = 20;
const firstPauseMs = 250;
const longestPauseMs = 2000;

/** Reads SOMA_PATIENCE, seconds. */
export function patienceOf(env: Readonly<Record<string, string | undefined>>): number {
  const seconds = Number(env.SOMA_PATIENCE ?? defaultSeconds);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : defaultSeconds;
}

/**
 * Repeats an attempt whose failure may pass, with growing pauses, until the time is over; then the last failure is
 * thrown as it is.
 * @param seconds 0: one attempt only
 */
export async function patiently<T>(
  seconds: number,
  signal: AbortSignal,
  passes: (error: unknown) => boolean,
  attempt: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + seconds * 1000;
  for (let pause = firstPauseMs; ; pause = Math.min(pause * 2, longestPauseMs)) {
    try {
      return await attempt();
    } catch (error) {
      if (!passes(error) || performance.now() + pause > deadline) throw error;
    }
    await sleep(pause, undefined, { signal });
  }
}
