import { randomUUIDv7 } from 'node:crypto';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { subjectOf, type TopicName } from '@somagent/events';
import type { EventEnvelope } from '@somagent/events/envelope.ts';
import { type Logger, messageOf, within } from '@somagent/kit';
import type { MessageSink } from '@somagent/kit/kafka.ts';
import type { VerdictRecord, VerdictSink } from './neighbours.ts';

const topic = 'verdict.decisions' satisfies TopicName;
const type = 'verdict.decided';
const version = 1;
const headers = { 'content-type': 'application/json', schema: `${subjectOf(topic, type)}:${version}` };

/** A verdict on its way to Kafka, or through the outbox. */
export interface VerdictEvent {
  readonly topic: typeof topic;
  readonly key: string;
  readonly value: EventEnvelope<typeof type>;
  readonly headers: Readonly<Record<string, string>>;
}

/** The event of a verdict. It keeps its contract by its type and by a test, not by a validation on each request. */
export function verdictEvent({ time, tenant, actor, ...data }: VerdictRecord): VerdictEvent {
  const { requestId } = data;
  const id = randomUUIDv7();
  return {
    topic,
    key: `${tenant ?? 'platform'}/${requestId}`,
    value: { id, type, version, time, tenant, actor, requestId, data },
    headers: { ...headers, id },
  };
}

/** Options of {@link KafkaVerdictSink}. */
export interface VerdictSinkOptions {
  readonly producer: MessageSink;
  /** Stores events in the outbox, in one transaction. Events that are there already are left out. */
  readonly spill: (events: readonly VerdictEvent[]) => Promise<void>;
  readonly log: Logger;
  /** Verdicts that may wait in memory; with as many nothing more is served. @default 20000 */
  readonly capacity?: number;
  /** The most verdicts of one request to Kafka. @default 500 */
  readonly batch?: number;
  /** Verdicts of so many milliseconds travel together; what a killed process loses is at most this and one batch. @default 50 */
  readonly linger?: number;
  /** Time after which Kafka counts as away and the outbox is used, milliseconds. @default 2000 */
  readonly patience?: number;
  /** Time until Kafka is tried again, milliseconds. @default 1000 */
  readonly pause?: number;
}

/**
 * Brings verdicts to Kafka in batches, off the way of requests. When Kafka refuses or is silent, batches go to the
 * outbox; when that refuses too, they wait in memory, and once that is full nothing is served: no verdict is dropped.
 * An event can arrive twice (a late answer of Kafka); its id tells.
 */
export class KafkaVerdictSink implements VerdictSink {
  readonly #options: Required<VerdictSinkOptions>;
  #waiting: VerdictRecord[] = [];
  #pump: Promise<void> | undefined;
  #awayUntil = 0;
  #delivered = { kafka: 0, outbox: 0 };

  constructor(options: VerdictSinkOptions) {
    this.#options = { capacity: 20_000, batch: 500, linger: 50, patience: 2000, pause: 1000, ...options };
  }

  get accepting(): boolean {
    return this.#waiting.length < this.#options.capacity;
  }

  /** Verdicts that wait in memory, and how many went which way. */
  get state(): { readonly waiting: number; readonly kafka: number; readonly outbox: number } {
    return { waiting: this.#waiting.length, ...this.#delivered };
  }

  record(verdict: VerdictRecord): void {
    this.#waiting.push(verdict);
    this.#pump ??= this.#run();
  }

  /** Resolves when nothing waits any more. */
  async flush(): Promise<void> {
    while (this.#pump !== undefined) await this.#pump;
  }

  async #run(): Promise<void> {
    const { linger, batch } = this.#options;
    await sleep(linger);
    while (this.#waiting.length > 0) {
      const events = await inSlices(this.#waiting.slice(0, batch), verdictEvent);
      // They count as waiting until they are safe.
      await this.#deliver(events);
      this.#waiting.splice(0, events.length);
      if (this.#waiting.length < batch) await sleep(linger);
    }
    this.#pump = undefined;
  }

  async #deliver(events: readonly VerdictEvent[]): Promise<void> {
    for (;;) {
      if ((await this.#toKafka(events)) || (await this.#toOutbox(events))) return;
      await sleep(100);
    }
  }

  async #toKafka(events: readonly VerdictEvent[]): Promise<boolean> {
    const { producer, patience, pause, log } = this.#options;
    if (performance.now() < this.#awayUntil) return false;
    try {
      const messages = await inSlices(events, messageOfEvent);
      await within(patience, producer.send(messages));
      this.#delivered.kafka += events.length;
      return true;
    } catch (error) {
      this.#awayUntil = performance.now() + pause;
      log.warn({ reason: messageOf(error), verdicts: events.length }, 'Kafka takes no verdicts: they go to the outbox');
      return false;
    }
  }

  async #toOutbox(events: readonly VerdictEvent[]): Promise<boolean> {
    try {
      await this.#options.spill(events);
      this.#delivered.outbox += events.length;
      return true;
    } catch (error) {
      const waiting = this.#waiting.length;
      this.#options.log.error(
        { reason: messageOf(error), waiting },
        'the outbox takes no verdicts: they wait in memory',
      );
      return false;
    }
  }
}

const messageOfEvent = (event: VerdictEvent) => ({ ...event, value: JSON.stringify(event.value) });

/** So many verdicts are made in one turn of the event loop: requests wait for none longer than some tenths of a millisecond. */
const slice = 32;

/** Maps in turns of the event loop, so that no request waits for a whole batch. */
async function inSlices<Item, Made>(items: readonly Item[], make: (item: Item) => Made): Promise<Made[]> {
  const made: Made[] = [];
  for (let start = 0; start < items.length; start += slice) {
    if (start > 0) await nextTurn();
    for (const item of items.slice(start, start + slice)) made.push(make(item));
  }
  return made;
}
