import type { Caller } from './caller.ts';
import type { ControlState, FollowedControlState } from './neighbours.ts';

/** Follows whether a caller may still be answered, for answers that last. */
export interface Standing {
  /** Aborts when the caller's credential is revoked, or the caller or the tenant suspended. */
  readonly signal: AbortSignal;
  /** Ends following. */
  release(): void;
}

/** Whether a caller has lost the right to any answer: revoked, or suspended. */
const hasLostStanding = (control: ControlState, { tenant, subject, revocable }: Caller): boolean =>
  control.revoked(revocable) || control.suspended(tenant, subject) !== null;

/** Follows a caller's standing: a stream that was allowed once must end when the caller may not ask for it any more. */
export function followStanding(control: FollowedControlState, caller: Caller): Standing {
  const lost = new AbortController();
  const release = control.onChange(() => {
    if (hasLostStanding(control, caller)) lost.abort();
  });
  return { signal: lost.signal, release };
}
