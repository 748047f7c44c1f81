import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type IncomingMessage, type KafkaConfig, KafkaConsumer, type Logger } from '@somagent/kit';
import type { Warehouse } from '../warehouse/warehouse.ts';
import { Classifier } from './classify.ts';
import { Evolution, type SchemaSource } from './evolution.ts';
import { Journal, placeName } from './journal.ts';
import { Lane, type LaneParts } from './lane.ts';
import { ingestedTopics } from './rows.ts';

/** Options of {@link Ingester}. */
export interface IngesterOptions {
  readonly kafka: KafkaConfig;
  readonly warehouse: Warehouse;
  readonly schemas: SchemaSource;
  readonly log: Logger;
  /** The most messages that are taken at once. @default 20,000 */
  readonly batch?: number;
  /** The shortest time between two rounds, milliseconds: fewer and larger parts. @default 250 */
  readonly pace?: number;
  /** Offers everything that Kafka still has once more; what is stored stays as it is. @default false */
  readonly replay?: boolean;
}

/** Brings events from Kafka into ClickHouse, each once. Positions are ClickHouse's; those of Kafka decide nothing. */
export class Ingester {
  readonly #options: IngesterOptions;
  readonly #consumer: KafkaConsumer;
  readonly #journal: Journal;
  readonly #parts: LaneParts;
  readonly #stop = new AbortController();
  #lanes = new Map<string, Lane>();
  #positions: ReadonlyMap<string, bigint> = new Map();

  constructor(options: IngesterOptions) {
    const { warehouse, schemas, batch = 20_000 } = options;
    this.#options = options;
    this.#journal = new Journal(warehouse);
    const classifier = new Classifier(new Evolution(schemas));
    this.#parts = { warehouse, journal: this.#journal, classifier, writer: randomUUID(), batch };
    this.#consumer = new KafkaConsumer(options.kafka, {
      group: 'analytics',
      topics: ingestedTopics,
      log: options.log,
      batch,
      positions: () => this.#begin(),
      handle: (messages) => this.#round(messages),
    });
  }

  /** Whether it reads at this moment. */
  get joined(): boolean {
    return this.#consumer.joined;
  }

  /** Messages that Kafka had removed before they were read. */
  get missed(): number {
    return [...this.#lanes.values()].reduce((sum, { missed }) => sum + Number(missed), 0);
  }

  start(): void {
    this.#consumer.start();
  }

  /** Ends after the running round. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#consumer.stop();
  }

  /** Begins anew with every membership in the group: another process may have gone on meanwhile. */
  async #begin(): Promise<ReadonlyMap<string, bigint>> {
    this.#lanes = new Map();
    this.#positions = this.#options.replay ? new Map() : await this.#journal.positions();
    return this.#positions;
  }

  async #round(messages: readonly IncomingMessage[]): Promise<void> {
    const began = performance.now();
    const missed = this.missed;
    const byPlace = Map.groupBy(messages, placeName);
    const done = await Promise.allSettled([...byPlace].map(([name, own]) => this.#lane(name, own).offer(own)));
    const failed = done.find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
    if (this.missed > missed) {
      this.#options.log.error(
        { missed: this.missed },
        'messages were removed before they were read: raise the retention',
      );
    }
    const rest = (this.#options.pace ?? 250) - (performance.now() - began);
    if (rest > 0) await sleep(rest, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }

  #lane(name: string, [first]: readonly IncomingMessage[]): Lane {
    const known = this.#lanes.get(name);
    if (known !== undefined || first === undefined) return known as Lane;
    const { topic, partition } = first;
    const lane = new Lane(this.#parts, { topic, partition }, this.#positions.get(name) ?? 0n);
    this.#lanes.set(name, lane);
    return lane;
  }
}
