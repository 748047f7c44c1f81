import { setTimeout as sleep } from 'node:timers/promises';
import { event, type OutgoingEvent } from '@somagent/events';
import { type Logger, messageOf } from '@somagent/kit';
import type { Drift, PolicyEngineOptions } from './engine.ts';

/** Options of {@link policyRecords}. */
export interface PolicyRecordsOptions {
  /** The service that asks the policy. */
  readonly service: string;
  /** Stores events where they can't get lost: in the outbox, or in the audit log itself. */
  readonly store: (events: readonly OutgoingEvent[]) => Promise<void>;
  readonly log: Logger;
  /** Pause before a store that refused is tried again, milliseconds. @default 1000 */
  readonly pause?: number;
  /** Events that wait for the store at most, 3 or more: so many kinds there are. @default 100 */
  readonly capacity?: number;
}

/**
 * Records on `audit.control` what becomes of the policy of a service: a bundle in force, one that was refused, and the
 * alert that what runs is not what is published. While the store is away the events wait, in their order; when there are
 * too many the oldest go, but never the newest of a kind, and the next event that is stored says how many.
 */
export function policyRecords({
  service,
  store,
  log,
  pause = 1000,
  capacity = 100,
}: PolicyRecordsOptions): Required<Pick<PolicyEngineOptions, 'log' | 'onDrift' | 'onSwap'>> {
  const origin = { tenant: null, actor: { kind: 'system' as const, id: service, client: null } };
  const waiting = new Waiting(capacity);
  let previous: string | null = null;
  let storing = false;
  const record = (...events: readonly PolicyEvent[]): void => {
    waiting.add(events);
    if (!storing) void untilStored();
  };
  const untilStored = async (): Promise<void> => {
    storing = true;
    for (let batch = waiting.take(); batch.length > 0; batch = waiting.take()) {
      try {
        await store(waiting.telling(batch));
        waiting.told();
      } catch (error) {
        waiting.putBack(batch);
        log.error({ reason: messageOf(error), ...waiting.state }, 'a change of the policy is not recorded yet');
        await sleep(pause, undefined, { ref: false });
      }
    }
    // In the same turn as the last look, so that nobody comes between.
    storing = false;
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

type PolicyEvent = OutgoingEvent<'policy.loaded' | 'policy.refused' | 'policy.drifted', object>;

const kinds = 3;

/** Events that the store has not taken yet, a bounded number of them. */
class Waiting {
  readonly #capacity: number;
  readonly #events: PolicyEvent[] = [];
  #dropped = 0;
  /** Of them, how many the batch says that is on its way. */
  #saying = 0;

  /** @throws RangeError for fewer than there are kinds */
  constructor(capacity: number) {
    if (!(capacity >= kinds)) throw new RangeError(`capacity is ${capacity}: give ${kinds} or more`);
    this.#capacity = capacity;
  }

  get state(): { readonly waiting: number; readonly dropped: number } {
    return { waiting: this.#events.length, dropped: this.#dropped };
  }

  add(events: readonly PolicyEvent[]): void {
    this.#events.push(...events);
    this.#trim();
  }

  take(): readonly PolicyEvent[] {
    return this.#events.splice(0);
  }

  /** The store refused them. */
  putBack(events: readonly PolicyEvent[]): void {
    this.#events.unshift(...events);
    this.#trim();
  }

  /** The batch as it is stored: its first event says what is missing before it. */
  telling([first, ...rest]: readonly PolicyEvent[]): readonly PolicyEvent[] {
    this.#saying = this.#dropped;
    if (first === undefined || this.#dropped === 0) return first === undefined ? [] : [first, ...rest];
    const data = { ...first.value.data, dropped: this.#dropped };
    return [{ ...first, value: { ...first.value, data } }, ...rest];
  }

  /** The batch of {@link telling} is stored. */
  told(): void {
    this.#dropped -= this.#saying;
  }

  #trim(): void {
    const hasNewer = ({ value: { type } }: PolicyEvent, at: number) =>
      this.#events.findLastIndex(({ value }) => value.type === type) > at;
    while (this.#events.length > this.#capacity) {
      this.#events.splice(this.#events.findIndex(hasNewer), 1);
      this.#dropped += 1;
    }
  }
}

type Origin = Pick<Parameters<typeof event>[2], 'tenant' | 'actor'>;

/** A bundle that is published and does not run was refused, or could not be had. */
function driftEvents(service: string, origin: Origin, { running, published, reason }: Drift): PolicyEvent[] {
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
