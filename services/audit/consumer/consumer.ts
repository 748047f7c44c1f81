import { topicNames, topics } from '@somagent/events';
import { type IncomingMessage, type KafkaConfig, KafkaConsumer, type Logger } from '@somagent/kit';
import type { AuditLog, Offsets } from '../log/audit-log.ts';
import { leafOfMessage } from '../log/leaf.ts';

/** Topics that end in the audit log: those that the service may consume. */
export const auditedTopics = topicNames.filter((name) =>
  (topics[name].consumers as readonly string[]).includes('audit'),
);

/** Options of {@link AuditConsumer}. */
export interface AuditConsumerOptions {
  readonly kafka: KafkaConfig;
  readonly auditLog: Pick<AuditLog, 'append' | 'position'>;
  readonly log: Logger;
  /** The most messages of one transaction. @default 4000 */
  readonly batch?: number;
  /** Messages of so many milliseconds share a transaction; checkpoints come every second anyway. @default 200 */
  readonly linger?: number;
}

/**
 * Brings events from Kafka into the log. Leaves and offsets are stored in one transaction; a message that comes again is
 * recognized by its event id, whatever Kafka remembers of offsets.
 */
export class AuditConsumer {
  readonly #options: AuditConsumerOptions;
  readonly #consumer: KafkaConsumer;
  #next: Map<string, bigint> | undefined;
  #missed = 0n;

  constructor(options: AuditConsumerOptions) {
    this.#options = options;
    this.#consumer = new KafkaConsumer(options.kafka, {
      group: 'audit',
      topics: auditedTopics,
      log: options.log,
      batch: options.batch ?? 4000,
      linger: options.linger ?? 200,
      handle: (messages) => this.#append(messages),
    });
  }

  /** Whether it reads at this moment. */
  get joined(): boolean {
    return this.#consumer.joined;
  }

  /** Messages that Kafka skipped: they were removed, or a restored database lost them. They are missing in the log. */
  get missed(): number {
    return Number(this.#missed);
  }

  start(): void {
    this.#consumer.start();
  }

  /** Ends after the running transaction. */
  stop(): Promise<void> {
    return this.#consumer.stop();
  }

  async #append(messages: readonly IncomingMessage[]): Promise<void> {
    const { auditLog } = this.#options;
    this.#next ??= nextOffsets((await auditLog.position()).offsets);
    const offsets = offsetsAfter(messages);
    this.#noticeGaps(messages, this.#next);
    const { conflicts } = await auditLog.append(messages.map(leafOfMessage), offsets);
    for (const [key, offset] of nextOffsets(offsets)) this.#next.set(key, offset);
    if (conflicts > 0) {
      this.#options.log.error(
        { conflicts },
        'different events came under one id: each is kept, look at their producer',
      );
    }
  }

  #noticeGaps(messages: readonly IncomingMessage[], next: ReadonlyMap<string, bigint>): void {
    for (const [key, first] of firstOffsets(messages)) {
      const expected = next.get(key);
      if (expected === undefined || first <= expected) continue;
      this.#missed += first - expected;
      const gap = { partition: key, from: String(expected), to: String(first) };
      this.#options.log.error(gap, 'messages were removed before the log had them: raise the retention of the topic');
    }
  }
}

const keyOf = ({ topic, partition }: IncomingMessage) => `${topic}/${partition}`;

const nextOffsets = (offsets: Offsets) =>
  new Map(Object.entries(offsets).map(([key, offset]) => [key, BigInt(offset)] as const));

const offsetsAfter = (messages: readonly IncomingMessage[]): Offsets =>
  Object.fromEntries(messages.map((message) => [keyOf(message), String(message.offset + 1n)]));

function firstOffsets(messages: readonly IncomingMessage[]): Map<string, bigint> {
  const first = new Map<string, bigint>();
  for (const message of messages) if (!first.has(keyOf(message))) first.set(keyOf(message), message.offset);
  return first;
}
