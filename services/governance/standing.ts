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

/**
 * Follows whether work for a caller may go on: as {@link followStanding}, and a halt of the tenant ends it too. It also
 * ends at once where that is so already: between the verdict and the work a halt may have come.
 */
export function followWork(control: FollowedControlState, caller: Caller): Standing {
  const lost = new AbortController();
  const look = () => {
    if (hasLostStanding(control, caller)) lost.abort(new WorkEnded('suspended'));
    else if (control.halted(caller.tenant)) lost.abort(new WorkEnded('halted'));
  };
  const release = control.onChange(look);
  look();
  return { signal: lost.signal, release };
}

/** Why work that had been allowed was ended. */
export class WorkEnded extends Error {
  readonly why: 'halted' | 'suspended';

  constructor(why: 'halted' | 'suspended') {
    super(why === 'halted' ? 'agent work was halted' : 'the caller may not go on: suspended or revoked');
    this.name = 'WorkEnded';
    this.why = why;
  }
}

/** Follows a caller's standing: a stream that was allowed once must end when the caller may not ask for it any more. */
export function followStanding(control: FollowedControlState, caller: Caller): Standing {
  const lost = new AbortController();
  const release = control.onChange(() => {
    if (hasLostStanding(control, caller)) lost.abort();
  });
  return { signal: lost.signal, release };
}
