import { setTimeout as sleep } from 'node:timers/promises';
import { type IncomingMessage, type KafkaConfig, KafkaConsumer, type Logger } from '@somagent/kit';
import type { Warehouse } from '../warehouse/warehouse.ts';
import { Classifier } from './classify.ts';
import { Evolution, type SchemaSource } from './evolution.ts';
import { Intake } from './intake.ts';
import { Positions } from './positions.ts';
import { ingestedTopics } from './rows.ts';

/** Options of {@link Ingester}. */
export interface IngesterOptions {
  readonly kafka: KafkaConfig;
  readonly warehouse: Warehouse;
  readonly schemas: SchemaSource;
  readonly log: Logger;
  /** The most messages that are taken at once. @default 20,000 */
  readonly batch?: number;
  /** The shortest time between two rounds while no backlog waits, milliseconds: fewer and larger parts. @default 800 */
  readonly pace?: number;
  /** Offers everything that Kafka still has once more; what is stored stays as it is. @default false */
  readonly replay?: boolean;
}

const defaultBatch = 20_000;
const defaultPace = 800;
/**
 * Messages are gathered so long after the first one, milliseconds, at most: the events of a turn come together, and what
 * is stored in one round costs half of what two cost.
 */
const gathering = 500;

/** Positions are noted this often, milliseconds: far more often than rows are removed. */
const markEvery = 3600_000;

/** Brings events from Kafka into ClickHouse, each once. Positions are ClickHouse's; those of Kafka decide nothing. */
export class Ingester {
  readonly #options: IngesterOptions;
  readonly #consumer: KafkaConsumer;
  readonly #classifier: Classifier;
  readonly #positions: Positions;
  readonly #stop = new AbortController();
  #intake: Intake | undefined;
  readonly #gather: number;
  #marked = 0;

  constructor(options: IngesterOptions) {
    const { warehouse, schemas, batch = defaultBatch, pace = defaultPace } = options;
    this.#options = options;
    this.#gather = Math.min(gathering, pace);
    this.#positions = new Positions(warehouse);
    this.#classifier = new Classifier(new Evolution(schemas));
    this.#consumer = new KafkaConsumer(options.kafka, {
      group: 'analytics',
      topics: ingestedTopics,
      log: options.log,
      batch,
      linger: this.#gather,
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
    return this.#intake?.missed ?? 0;
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
    const { warehouse, batch, replay = false } = this.#options;
    const positions = await this.#positions.all();
    await this.#mark(positions);
    this.#intake = new Intake({ warehouse, classifier: this.#classifier, positions, replay, ...(batch && { batch }) });
    return replay ? new Map() : positions;
  }

  async #round(messages: readonly IncomingMessage[]): Promise<void> {
    const intake = this.#intake;
    if (intake === undefined) throw new Error('messages came before the positions were known');
    const began = performance.now();
    const { missed } = this;
    await intake.offer(messages);
    if (this.missed > missed) {
      this.#options.log.error(
        { missed: this.missed },
        'messages were removed before they were read: raise the retention',
      );
    }
    if (began - this.#marked > markEvery) await this.#mark(intake.positions);
    // As many as are taken at once: more wait, and parts are large without a pause.
    if (messages.length >= (this.#options.batch ?? defaultBatch)) return;
    const rest = (this.#options.pace ?? defaultPace) - this.#gather - (performance.now() - began);
    if (rest > 0) await sleep(rest, undefined, { signal: this.#stop.signal }).catch(() => undefined);
  }

  async #mark(positions: ReadonlyMap<string, bigint>): Promise<void> {
    await this.#positions.mark(positions);
    this.#marked = performance.now();
  }
}
