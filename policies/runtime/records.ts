import { setTimeout as sleep } from 'node:timers/promises';
import { event, type OutgoingEvent } from '@somagent/events';
import { type Logger, messageOf } from '@somagent/kit';
import type { PolicyListeners } from './config.ts';
import type { Drift } from './engine.ts';

/** Options of {@link policyRecords}. */
export interface PolicyRecordsOptions {
  /** The service that asks the policy. */
  readonly service: string;
  /** Stores events where they can't get lost: in the outbox, or in the audit log itself. */
  readonly store: (events: readonly OutgoingEvent[]) => Promise<void>;
  readonly log: Logger;
  /** Pause before a store that refused is tried again, milliseconds. @default 1000 */
  readonly pause?: number;
}

/**
 * Records on `audit.control` what becomes of the policy of a service: a bundle in force, one that was refused, and the
 * alert that what runs is not what is published. While the store is away the events wait, in their order.
 */
export function policyRecords({ service, store, log, pause = 1000 }: PolicyRecordsOptions): PolicyListeners {
  const origin = { tenant: null, actor: { kind: 'system' as const, id: service, client: null } };
  let previous: string | null = null;
  let stored = Promise.resolve();
  const record = (...events: readonly OutgoingEvent[]): void => {
    stored = stored.then(() => untilStored(events));
  };
  const untilStored = async (events: readonly OutgoingEvent[]): Promise<void> => {
    for (;;) {
      try {
        return await store(events);
      } catch (error) {
        log.error({ reason: messageOf(error) }, 'a change of the policy is not recorded yet');
        await sleep(pause, undefined, { ref: false });
      }
    }
  };
  return {
    log,
    onSwap: (revision) => {
      record(event('audit.control', 'policy.loaded', { ...origin, data: { service, revision, previous } }));
      previous = revision;
    },
    onDrift: (drift) => {
      if (drift !== null) record(...driftEvents(service, origin, drift));
    },
  };
}

type Origin = Pick<Parameters<typeof event>[2], 'tenant' | 'actor'>;

/** A bundle that is published and does not run was refused, or could not be had. */
function driftEvents(service: string, origin: Origin, { running, published, reason }: Drift): OutgoingEvent[] {
  const drifted = event('audit.control', 'policy.drifted', {
    ...origin,
    data: { service, running, signed: published },
  });
  if (published === null || published === running) return [drifted];
  return [
    drifted,
    event('audit.control', 'policy.refused', { ...origin, data: { service, revision: published, reason } }),
  ];
}
