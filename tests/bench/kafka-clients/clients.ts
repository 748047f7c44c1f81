import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Consumer, MessagesStreamFallbackModes, Producer, stringSerializers } from '@platformatic/kafka';
import { createLogger, type IncomingMessage, KafkaConsumer, KafkaProducer } from '@somagent/kit';
import { closeLostConnections, type KafkaConfig, kafkaConnection } from '@somagent/kit/kafka.ts';
import { Kafka, logLevel } from 'kafkajs';

/** What is sent and read in the comparison. */
export interface BenchMessage {
  readonly key: string;
  readonly value: string;
}

/** A producer with acks=all, idempotent, one request in flight: what the outbox needs. */
export interface BenchProducer {
  /** Resolves when all messages are acknowledged. */
  send(topic: string, messages: readonly BenchMessage[]): Promise<void>;
  close(): Promise<void>;
}

/** A member of a group that reads a topic from its beginning and commits once a second. */
export interface BenchConsumer {
  close(): Promise<void>;
}

/** A client of Kafka under comparison. */
export interface BenchClient {
  producer(): Promise<BenchProducer>;
  consumer(topic: string, group: string, got: (value: string) => void): Promise<BenchConsumer>;
}

/** Both clients get the same patience: 20 attempts, at most a second apart. */
const attempts = 20;

const platformatic = (config: KafkaConfig): BenchClient => ({
  async producer() {
    const connection = kafkaConnection(config, 'bench');
    const producer = new Producer({
      ...connection,
      serializers: stringSerializers,
      idempotent: true,
      retries: attempts,
    });
    closeLostConnections(producer);
    return {
      send: async (topic, messages) => {
        await producer.send({ messages: messages.map((message) => ({ topic, ...message })) });
      },
      close: () => producer.close(),
    };
  },
  async consumer(topic, group, got) {
    const options = { ...kafkaConnection(config, 'bench'), retries: attempts, groupId: group, autocommit: 1000 };
    const consumer = new Consumer({ ...options, sessionTimeout: 10_000, heartbeatInterval: 2000 });
    closeLostConnections(consumer);
    const stream = await consumer.consume({
      topics: [topic],
      mode: 'committed',
      fallbackMode: MessagesStreamFallbackModes.EARLIEST,
    });
    stream.on('data', ({ value }) => got(value.toString()));
    stream.on('error', (error) => console.error(`the consumer broke: ${error.message}`));
    return { close: () => consumer.close(true) };
  },
});

function kafkajs(config: KafkaConfig): BenchClient {
  const credential = (name: string) => readFileSync(join(config.KAFKA_CREDENTIALS_DIR, name), 'utf8').trim();
  const kafka = new Kafka({
    clientId: 'bench',
    brokers: config.KAFKA_BROKERS.split(','),
    ssl: { ca: [readFileSync(config.KAFKA_CA_FILE, 'utf8')] },
    sasl: { mechanism: 'scram-sha-512', username: credential('username'), password: credential('password') },
    connectionTimeout: 5000,
    requestTimeout: 15_000,
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: attempts },
    logLevel: logLevel.NOTHING,
  });
  return {
    async producer() {
      const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, allowAutoTopicCreation: false });
      await producer.connect();
      return {
        send: async (topic, messages) => {
          await producer.send({ topic, acks: -1, messages: [...messages] });
        },
        close: () => producer.disconnect(),
      };
    },
    async consumer(topic, group, got) {
      const consumer = kafka.consumer({ groupId: group, sessionTimeout: 10_000, heartbeatInterval: 2000 });
      await consumer.connect();
      await consumer.subscribe({ topics: [topic], fromBeginning: true });
      await consumer.run({
        autoCommitInterval: 1000,
        eachMessage: async ({ message }) => got(String(message.value)),
      });
      return { close: () => consumer.disconnect() };
    },
  };
}

/** @platformatic/kafka as the services use it. */
const kit = (config: KafkaConfig): BenchClient => ({
  async producer() {
    const producer = new KafkaProducer(config, { clientId: 'bench' });
    return {
      send: (topic, messages) => producer.send(messages.map((message) => ({ topic, ...message, headers: {} }))),
      close: () => producer.close(),
    };
  },
  async consumer(topic, group, got) {
    const log = createLogger({ service: 'bench', destination: process.stderr });
    const handle = async (messages: readonly IncomingMessage[]) => {
      for (const { value } of messages) got(value.toString());
    };
    const consumer = new KafkaConsumer(config, { group, topics: [topic], log, handle });
    consumer.start();
    return { close: () => consumer.stop() };
  },
});

/** The clients by name. */
export const clients = { '@platformatic/kafka': platformatic, kafkajs, '@somagent/kit': kit } as const;

/** The name of a client. */
export type ClientName = keyof typeof clients;
