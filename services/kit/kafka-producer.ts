import { Producer, stringSerializers } from '@platformatic/kafka';
import {
  closeLostConnections,
  explainKafkaError,
  isRefused,
  type KafkaConfig,
  KafkaError,
  kafkaConnection,
  type MessageSink,
  type OutgoingMessage,
} from './kafka.ts';

/** A broker refuses a record batch above 1 MiB; in the worst case a request is one batch. */
const requestBytes = 900_000;

/** Options of {@link KafkaProducer}. */
export interface ProducerOptions {
  /** Name of the service, as it appears in the logs of the brokers. */
  readonly clientId: string;
  /**
   * The most messages that may wait in {@link KafkaProducer.publish}.
   * @default 20000
   */
  readonly limit?: number;
}

interface Waiting {
  readonly message: OutgoingMessage;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Sends messages that are safe when the promise resolves: acknowledged by all replicas in sync, written once per
 * connection by the idempotence of the broker. After a rejection a message may be there, or come a second time when it
 * is sent again: consumers recognize it by its id.
 */
export class KafkaProducer implements MessageSink {
  readonly #config: KafkaConfig;
  readonly #clientId: string;
  readonly #limit: number;
  #producer: Producer<string, string, string, string>;
  #waiting: Waiting[] = [];
  #pump: Promise<void> | undefined;
  #closed = false;
  /** The end of what was sent last, by topic. */
  readonly #turns = new Map<string, Promise<void>>();

  /** @throws KafkaError when a file of the connection is missing. */
  constructor(config: KafkaConfig, { clientId, limit = 20_000 }: ProducerOptions) {
    this.#config = config;
    this.#clientId = clientId;
    this.#limit = limit;
    this.#producer = connect(config, clientId);
  }

  /** Messages that wait in {@link publish}. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Sends messages in order, in as many requests as their size asks for; those of a topic after all that was sent to it
   * before. The client (2.12.1) keeps no order among requests to one partition while a broker is away.
   * @throws KafkaError; then any of them may have arrived.
   */
  async send(messages: readonly OutgoingMessage[]): Promise<void> {
    const topics = Map.groupBy(messages, ({ topic }) => topic);
    await Promise.all([...topics].map(([topic, own]) => this.#inTurn(topic, () => this.#requests(topic, own))));
  }

  /**
   * Sends one message together with those that come while the request before it is under way: for many callers at
   * once. Resolves when it is safe.
   * @throws KafkaError at once when too many wait: the caller then slows down or refuses work.
   */
  publish(message: OutgoingMessage): Promise<void> {
    if (this.#waiting.length >= this.#limit) {
      const reason = `${this.#waiting.length} messages wait already`;
      const fix = 'Slow down; look at the broker pods if this stays';
      return Promise.reject(new KafkaError(`sending to ${message.topic}`, reason, fix, undefined));
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ message, resolve, reject });
    this.#pump ??= this.#run();
    return promise;
  }

  /** Sends what waits, then ends the connections. */
  async close(): Promise<void> {
    await this.#pump;
    this.#closed = true;
    await this.#producer.close();
  }

  #inTurn(topic: string, work: () => Promise<void>): Promise<void> {
    const done = (this.#turns.get(topic) ?? Promise.resolve()).then(work);
    this.#turns.set(
      topic,
      done.catch(() => undefined),
    );
    return done;
  }

  async #requests(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    for (const part of parts(messages)) await this.#request(topic, part);
  }

  async #request(topic: string, messages: readonly OutgoingMessage[]): Promise<void> {
    if (this.#producer.closed && !this.#closed) this.#producer = connect(this.#config, this.#clientId);
    try {
      // An unknown topic would be asked for again and again; this answers at once, and from its cache when all is well.
      await this.#producer.metadata({ topics: [topic], retries: 0 }).catch(throwUnknownTopic);
      await this.#producer.send({ messages: messages.map((message) => ({ ...message })) });
    } catch (error) {
      throw explainKafkaError(`sending to ${topic}`, error);
    }
  }

  async #run(): Promise<void> {
    // One turn of the event loop: callers of the same moment share a request.
    await new Promise(setImmediate);
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      // A topic that is refused must not fail the messages of another one.
      const topics = Map.groupBy(batch, ({ message }) => message.topic);
      await Promise.all([...topics.values()].map((own) => this.#settle(own)));
    }
    this.#pump = undefined;
  }

  async #settle(batch: readonly Waiting[]): Promise<void> {
    try {
      await this.send(batch.map(({ message }) => message));
      for (const { resolve } of batch) resolve();
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}

/** A broker that dies takes the leadership of its partitions with it for about ten seconds. */
const retries = 20;

function connect(config: KafkaConfig, clientId: string): Producer<string, string, string, string> {
  const connection = kafkaConnection(config, clientId);
  const producer = new Producer({
    ...connection,
    serializers: stringSerializers,
    idempotent: true,
    // Three brokers copy, encrypt and store each byte: compressed, an event costs them a fraction. Done in the thread pool.
    compression: 'gzip',
    autocreateTopics: false,
    retries,
    retryDelay: (client, operation, attempt, _retries, error) => {
      // The client would go on for all its retries; closed, it rejects what it has, and the next call connects anew.
      if (isRefused(error)) queueMicrotask(() => void producer.close(true));
      return connection.retryDelay(client, operation, attempt);
    },
  });
  closeLostConnections(producer);
  return producer;
}

function throwUnknownTopic(error: unknown): void {
  if (explainKafkaError('', error).reason === 'UNKNOWN_TOPIC_OR_PARTITION') throw error;
}

/** Cuts messages into requests that a broker accepts. */
function* parts(messages: readonly OutgoingMessage[]): Generator<readonly OutgoingMessage[]> {
  let part: OutgoingMessage[] = [];
  let bytes = 0;
  for (const message of messages) {
    const size = sizeOf(message);
    if (part.length > 0 && bytes + size > requestBytes) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(message);
    bytes += size;
  }
  if (part.length > 0) yield part;
}

/** Bytes of a message in a record batch, rounded up: lengths and deltas are below 64. */
function sizeOf({ key, value, headers }: OutgoingMessage): number {
  let size = Buffer.byteLength(value) + Buffer.byteLength(key) + 64;
  for (const name in headers) size += name.length + (headers[name]?.length ?? 0) + 8;
  return size;
}
