import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { text } from './config.ts';
import { messageOf } from './log.ts';

const address = /^[^\s:,]+:\d{1,5}$/;

/** The variables of a connection to Kafka. */
export const kafkaVariables = {
  KAFKA_BROKERS: z
    .string()
    .refine((value) => value.split(',').every((broker) => address.test(broker)), 'not a list of host:port')
    .describe('the brokers as host:port,host:port'),
  KAFKA_CREDENTIALS_DIR: text('the directory with the files username and password of this service'),
  KAFKA_CA_FILE: text('the PEM file of the authority that signed the certificates of the brokers'),
};

const schema = z.object(kafkaVariables);
/** Where and as whom to connect. */
export type KafkaConfig = z.output<typeof schema>;

/** A message for Kafka. The key decides the partition: messages with one key keep their order. */
export interface OutgoingMessage {
  readonly topic: string;
  readonly key: string;
  readonly value: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** Takes messages, in order, until all of them are safe. */
export interface MessageSink {
  /** Resolves when every message is acknowledged by all replicas that are in sync; when it rejects, any may be there. */
  send(messages: readonly OutgoingMessage[]): Promise<void>;
}

/** What went wrong with Kafka, and what to do. */
export class KafkaError extends Error {
  /** The broker's or the system's name of the error, as `TOPIC_AUTHORIZATION_FAILED`. */
  readonly reason: string;

  constructor(action: string, reason: string, fix: string, cause: unknown) {
    super(`${action}: ${reason}. ${fix}.`, { cause });
    this.name = 'KafkaError';
    this.reason = reason;
  }
}

function readText(config: KafkaConfig, path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new KafkaError(`connecting to Kafka at ${config.KAFKA_BROKERS}`, messageOf(cause), `Mount ${path}`, cause);
  }
}

/**
 * The options that every client of Kafka needs: TLS whose server is always verified, and SCRAM-SHA-512. Files are read
 * for each new connection, so that a rotated password or authority needs no restart.
 * @throws KafkaError when a file is missing.
 */
export function kafkaConnection(config: KafkaConfig, clientId: string) {
  const credential = (name: string) => () => readText(config, join(config.KAFKA_CREDENTIALS_DIR, name));
  const [username, password] = [credential('username'), credential('password')];
  const tls = {
    rejectUnauthorized: true,
    get ca() {
      return readText(config, config.KAFKA_CA_FILE);
    },
  };
  username();
  password();
  if (tls.ca === '')
    throw new KafkaError('connecting to Kafka', `${config.KAFKA_CA_FILE} is empty`, 'Mount it', undefined);
  return {
    clientId,
    bootstrapBrokers: config.KAFKA_BROKERS.split(','),
    tls,
    sasl: { mechanism: 'SCRAM-SHA-512' as const, username, password },
    connectTimeout: 5000,
    requestTimeout: 15_000,
    retryDelay: (_client: object, _operation: string, attempt: number) => Math.min(100 * 2 ** attempt, 1000),
  };
}

/** A client whose connections come and go. */
interface Connected {
  on(event: 'client:broker:disconnect', listener: (lost: { connection: { close(): unknown } }) => void): unknown;
}

/**
 * Closes connections that the broker has ended. The client (2.12.1) leaves them their timer of re-authentication, which
 * would bring a dead connection back to life minutes later and keep the process from ending.
 */
export function closeLostConnections(client: Connected): void {
  client.on('client:broker:disconnect', ({ connection }) => void connection.close());
}

/** What to do, by the name that an error has at the broker or in the system. */
const fixes: Readonly<Record<string, string>> = {
  TOPIC_AUTHORIZATION_FAILED:
    'Grant this user the topic in services/events/topics.ts and run the bootstrap command kafka',
  GROUP_AUTHORIZATION_FAILED: 'Use the group that bears the name of the user, or grant it the group',
  CLUSTER_AUTHORIZATION_FAILED: 'Grant this user at least one topic to write to',
  SASL_AUTHENTICATION_FAILED: 'Run the bootstrap command kafka: it sets the password of the Secret',
  UNKNOWN_TOPIC_OR_PARTITION: 'Declare the topic in services/events/topics.ts and run the bootstrap command kafka',
  MESSAGE_TOO_LARGE: 'Keep an event below 900 kB: store what is large and name it in the event',
  NOT_ENOUGH_REPLICAS: 'Look at the broker pods: fewer are in sync than min.insync.replicas asks for',
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: 'Look at the broker pods: fewer are in sync than min.insync.replicas asks for',
  ERR_TLS_CERT_ALTNAME_INVALID: 'Use a name of the brokers that is in their certificate',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'KAFKA_CA_FILE must hold the authority that signed the certificates of the brokers',
  SELF_SIGNED_CERT_IN_CHAIN: 'KAFKA_CA_FILE must hold the authority that signed the certificates of the brokers',
  CERT_HAS_EXPIRED: 'Renew the certificates of the brokers: run the bootstrap command secrets',
  ENOTFOUND: 'Look at KAFKA_BROKERS and at the Service of the brokers',
  ECONNREFUSED: 'Look at the broker pods and at the NetworkPolicy between them and this service',
};
/** What no connection gets over by trying again: a person has to act. */
const refusals: ReadonlySet<string> = new Set([
  'SASL_AUTHENTICATION_FAILED',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'CERT_HAS_EXPIRED',
]);
const unknownFix = 'Look at the broker pods and their log';

/** The error and everything inside it: clients wrap what the broker said in aggregates and causes. */
function* within(error: unknown): Generator<Record<string, unknown>> {
  if (typeof error !== 'object' || error === null) return;
  yield error as Record<string, unknown>;
  if (error instanceof AggregateError) for (const inner of error.errors) yield* within(inner);
  if (error instanceof Error) yield* within(error.cause);
}

function reasonOf(error: unknown): string {
  const names = [...within(error)]
    .flatMap(({ apiId, code }) => [apiId, code])
    .filter((name) => typeof name === 'string');
  const known = names.find((name) => name in fixes);
  if (known !== undefined) return known;
  const message = messageOf(error);
  return message.startsWith('Unknown topic') ? 'UNKNOWN_TOPIC_OR_PARTITION' : (names.at(-1) ?? message);
}

/** Whether the connection itself is refused, or can't be tried for want of a file. */
export const isRefused = (error: unknown): boolean =>
  refusals.has(reasonOf(error)) || [...within(error)].some((each) => each instanceof KafkaError);

/** Says what a client's error means and what to do. `action` is what was tried: `sending to audit.session`. */
export function explainKafkaError(action: string, error: unknown): KafkaError {
  if (error instanceof KafkaError) return error;
  const inner = [...within(error)].find((each) => each instanceof KafkaError);
  if (inner instanceof KafkaError) return inner;
  const reason = reasonOf(error);
  return new KafkaError(action, reason, fixes[reason] ?? unknownFix, error);
}
