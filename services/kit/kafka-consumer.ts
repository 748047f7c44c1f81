import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Consumer,
  ListOffsetTimestamps,
  type Message,
  MessagesStreamFallbackModes,
  MessagesStreamModes,
} from '@platformatic/kafka';
import { closeLostConnections, explainKafkaError, type KafkaConfig, kafkaConnection } from './kafka.ts';
import type { Logger } from './log.ts';

/** A message as a consumer sees it. */
export interface IncomingMessage {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly key: string;
  readonly value: Buffer;
  readonly headers: ReadonlyMap<string, string>;
}

/** Options of {@link KafkaConsumer}. */
export interface ConsumerOptions {
  /** The consumer group: the name of the service. */
  readonly group: string;
  readonly topics: readonly string[];
  readonly log: Logger;
  /**
   * Processes messages, those of one partition in order. Offsets are committed after it resolves. When it rejects, the
   * same messages come again after a pause, as long as it takes.
   */
  readonly handle: (messages: readonly IncomingMessage[]) => Promise<unknown>;
  /**
   * Which of these event ids were processed before; their messages are left out. It matters only where `handle` does
   * not recognize them by itself, in its own transaction.
   */
  readonly known?: (ids: readonly string[]) => Promise<ReadonlySet<string>>;
  /** The most messages that `handle` gets at once. @default 500 */
  readonly batch?: number;
  /** How long messages that follow the first one are gathered, milliseconds, until a batch is full. @default 0 */
  readonly linger?: number;
  /**
   * Where to begin, by `topic/partition`, asked at each membership: for who keeps its positions with what it made of
   * the messages. Partitions that it does not name begin with the oldest message. @default where the group committed
   */
  readonly positions?: () => Promise<ReadonlyMap<string, bigint>>;
}

type Raw = Message<Buffer, Buffer, Buffer, Buffer>;

const pauses = { first: 100, longest: 5000 };
/** What one fetch of one broker may bring, bytes: bounds the memory together with the high-water mark. */
const fetchBytes = 4 * 1024 * 1024;

/**
 * Reads topics as a member of a group, from where the group has committed, at least once: a message comes again when
 * the process dies between its processing and the commit. Reconnects by itself; backpressure is `handle` that is slow.
 */
export class KafkaConsumer {
  readonly #config: KafkaConfig;
  readonly #options: ConsumerOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #joined = false;

  constructor(config: KafkaConfig, options: ConsumerOptions) {
    this.#config = config;
    this.#options = options;
  }

  /** Whether it is a member of its group at this moment. */
  get joined(): boolean {
    return this.#joined;
  }

  /** Begins to read; errors are logged and tried again. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Lets `handle` finish, commits what it processed, and leaves the group. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log, topics } = this.#options;
    for (let pause = pauses.first; !this.#stop.signal.aborted; pause = Math.min(pause * 2, pauses.longest)) {
      try {
        await this.#session(() => {
          pause = pauses.first;
        });
      } catch (error) {
        log.warn(
          { err: explainKafkaError(`reading ${topics.join(', ')}`, error), pause },
          'reading from Kafka broke off',
        );
        await sleep(pause, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
  }

  /** One membership in the group, until it breaks or the consumer stops. */
  async #session(progressed: () => void): Promise<void> {
    const consumer = new Consumer({
      ...kafkaConnection(this.#config, this.#options.group),
      groupId: this.#options.group,
      autocommit: false,
      retries: 10,
      sessionTimeout: 10_000,
      heartbeatInterval: 2000,
      maxBytes: fetchBytes,
      highWaterMark: 2 * this.#batch,
    });
    closeLostConnections(consumer);
    // A member that was never admitted has nothing to finish: it need not wait for brokers that are away.
    const giveUp = () => void (this.#joined || consumer.close(true).catch(() => undefined));
    this.#stop.signal.addEventListener('abort', giveUp);
    try {
      const stream = await consumer.consume({
        topics: [...this.#options.topics],
        fallbackMode: MessagesStreamFallbackModes.EARLIEST,
        ...(await this.#beginning(consumer)),
      });
      this.#joined = true;
      for await (const batch of batches(stream, this.#batch, this.#options.linger ?? 0, this.#stop.signal)) {
        if (!(await this.#process(batch))) return;
        await consumer.commit({ offsets: offsetsAfter(batch) });
        progressed();
      }
    } finally {
      this.#joined = false;
      this.#stop.signal.removeEventListener('abort', giveUp);
      await consumer.close(true).catch((error: unknown) => this.#options.log.debug({ err: error }, 'closing Kafka'));
    }
  }

  async #beginning(consumer: Consumer<Buffer, Buffer, Buffer, Buffer>) {
    const { positions, topics } = this.#options;
    if (positions === undefined) return { mode: MessagesStreamModes.COMMITTED };
    const [known, oldest] = await Promise.all([
      positions(),
      consumer.listOffsets({ topics: [...topics], timestamp: ListOffsetTimestamps.EARLIEST }),
    ]);
    const offsets = [...oldest].flatMap(([topic, firsts]) =>
      firsts.map((first, partition) => {
        const position = known.get(`${topic}/${partition}`) ?? first;
        // What was removed can't be asked for; `handle` sees the gap.
        return { topic, partition, offset: position > first ? position : first };
      }),
    );
    return { mode: MessagesStreamModes.MANUAL, offsets };
  }

  get #batch(): number {
    return this.#options.batch ?? 500;
  }

  /** @returns whether the messages were processed; false when the consumer stops first. */
  async #process(batch: readonly Raw[]): Promise<boolean> {
    for (let pause = pauses.first; ; pause = Math.min(pause * 2, pauses.longest)) {
      try {
        const messages = await this.#withoutKnown(batch.map((raw) => new Incoming(raw)));
        if (messages.length > 0) await this.#options.handle(messages);
        return true;
      } catch (error) {
        this.#options.log.error(
          { err: error, messages: batch.length, pause },
          'processing failed, the messages come again',
        );
        await sleep(pause, undefined, { signal: this.#stop.signal }).catch(() => undefined);
        if (this.#stop.signal.aborted) return false;
      }
    }
  }

  async #withoutKnown(messages: readonly IncomingMessage[]): Promise<readonly IncomingMessage[]> {
    const { known } = this.#options;
    if (known === undefined) return messages;
    const ids = messages.flatMap(({ headers }) => headers.get('id') ?? []);
    const seen = new Set(await known(ids));
    return messages.filter(({ headers }) => {
      const id = headers.get('id');
      if (id === undefined) return true;
      return seen.has(id) ? false : seen.add(id);
    });
  }
}

/** A message as it came; what not everybody asks for becomes text when it is asked for. */
class Incoming implements IncomingMessage {
  readonly #raw: Raw;

  constructor(raw: Raw) {
    this.#raw = raw;
  }

  get topic(): string {
    return this.#raw.topic;
  }

  get partition(): number {
    return this.#raw.partition;
  }

  get offset(): bigint {
    return this.#raw.offset;
  }

  get key(): string {
    return this.#raw.key?.toString() ?? '';
  }

  get value(): Buffer {
    return this.#raw.value;
  }

  get headers(): ReadonlyMap<string, string> {
    return new Map([...this.#raw.headers].map(([name, text]) => [name.toString(), text.toString()]));
  }
}

/** The offsets to commit once all of these are processed. */
function offsetsAfter(batch: readonly Raw[]) {
  const topics = new Map<string, Map<number, Raw>>();
  for (const message of batch) {
    const partitions = topics.get(message.topic) ?? new Map<number, Raw>();
    topics.set(message.topic, partitions.set(message.partition, message));
  }
  const last = [...topics.values()].flatMap((partitions) => [...partitions.values()]);
  return last.map(({ topic, partition, offset, leaderEpoch }) => ({
    topic,
    partition,
    offset: offset + 1n,
    leaderEpoch,
  }));
}

interface MessageStream {
  read(): Raw | null;
  on(event: 'readable', listener: () => void): unknown;
}

/**
 * What has arrived, `linger` milliseconds after something has; ends when `signal` is aborted, throws when the stream
 * breaks.
 */
async function* batches(
  stream: MessageStream & NodeJS.EventEmitter,
  limit: number,
  linger: number,
  signal: AbortSignal,
): AsyncGenerator<readonly Raw[]> {
  let broken: unknown;
  stream.on('error', (error: unknown) => {
    broken = error;
  });
  stream.on('readable', () => undefined);
  while (!signal.aborted) {
    const batch = take(stream, limit);
    if (batch.length > 0) yield await followed(stream, batch, limit, linger, signal);
    else if (broken !== undefined) throw broken;
    else await once(stream, 'readable', { signal }).catch((error: unknown) => ended(error, signal));
  }
}

/** A batch with what arrives a little later. */
async function followed(
  stream: MessageStream,
  batch: readonly Raw[],
  limit: number,
  linger: number,
  signal: AbortSignal,
): Promise<readonly Raw[]> {
  if (linger === 0 || batch.length >= limit) return batch;
  await sleep(linger, undefined, { signal }).catch(() => undefined);
  return [...batch, ...take(stream, limit - batch.length)];
}

function ended(error: unknown, signal: AbortSignal): void {
  if (!signal.aborted) throw error;
}

function take(stream: MessageStream, limit: number): readonly Raw[] {
  const batch: Raw[] = [];
  while (batch.length < limit) {
    const message = stream.read();
    if (message === null) break;
    batch.push(message);
  }
  return batch;
}
