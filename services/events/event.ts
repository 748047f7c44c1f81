import { randomUUIDv7 } from 'node:crypto';
import { z } from 'zod';
import type { EventContract } from './contract.ts';
import { type EventData, type EventType, findContract, subjectOf } from './contracts.ts';
import { type Actor, actor, type EventEnvelope, envelopeOf } from './envelope.ts';
import type { TopicName } from './topics.ts';

/** What the caller of {@link event} knows. */
export interface EventContent<Data> {
  /** Whom it concerns; null is the platform itself. */
  readonly tenant: string | null;
  readonly actor: Actor;
  /** @default null */
  readonly requestId?: string | null;
  readonly data: Data;
  /** UUID of the event, where a repetition must give the same one. @default a new UUID, version 7 */
  readonly id?: string;
  /** @default now */
  readonly time?: Date;
}

/** An event on its way to Kafka: what an outbox stores and a producer sends. */
export interface OutgoingEvent<Type extends string = string, Data = unknown> {
  readonly topic: TopicName;
  readonly key: string;
  readonly value: EventEnvelope<Type, Data>;
  readonly headers: Readonly<Record<string, string>>;
}

/** An event of a topic, told apart by its `type`. */
export type EventOf<Topic extends TopicName> = {
  [Type in EventType<Topic>]: EventEnvelope<Type, EventData<Topic, Type>>;
}[EventType<Topic>];

/** An event that does not keep its contract. */
export class EventError extends Error {
  constructor(topic: TopicName, type: string, problem: string) {
    super(`event ${type} of ${topic}: ${problem}`);
    this.name = 'EventError';
  }
}

const content = z.object({ tenant: z.string().min(1).nullable(), actor, requestId: z.string().min(1).nullable() });
const strict = new WeakMap<EventContract, z.ZodObject>();

/** The schema of the data for producers: a field that the contract does not know would be lost without a word. */
function strictData(contract: EventContract): z.ZodObject {
  const known = strict.get(contract);
  if (known !== undefined) return known;
  const schema = contract.data.strict();
  strict.set(contract, schema);
  return schema;
}

function contractOf(topic: TopicName, type: string): EventContract {
  const contract = findContract(topic, type);
  if (contract === undefined)
    throw new EventError(topic, type, 'no such type; declare it in services/events/contracts');
  return contract;
}

const problemOf = (error: z.ZodError, prefix = ''): string =>
  error.issues.map((issue) => `${prefix}${issue.path.join('.')}: ${issue.message}`).join('; ');

/**
 * Makes an event that keeps its contract, with the key and the headers under which it is sent.
 * @throws EventError naming every field that is wrong.
 */
export function event<Topic extends TopicName, Type extends EventType<Topic>>(
  topic: Topic,
  type: Type,
  {
    tenant,
    actor,
    requestId = null,
    data,
    id = randomUUIDv7(),
    time = new Date(),
  }: EventContent<EventData<Topic, Type>>,
): OutgoingEvent<Type, EventData<Topic, Type>> {
  const contract = contractOf(topic, type);
  const common = content.safeParse({ tenant, actor, requestId });
  if (!common.success) throw new EventError(topic, type, problemOf(common.error));
  const parsed = strictData(contract).safeParse(data);
  if (!parsed.success) throw new EventError(topic, type, problemOf(parsed.error, 'data.'));
  return {
    topic,
    key: `${tenant ?? 'platform'}/${contract.aggregate(parsed.data)}`,
    value: { id, type, version: contract.version, time: time.toISOString(), tenant, actor, requestId, data },
    headers: {
      'content-type': 'application/json',
      schema: `${subjectOf(topic, type)}:${contract.version}`,
      id,
    },
  };
}

const envelopes = new WeakMap<EventContract, z.ZodType>();

function envelopeSchema(contract: EventContract, type: string): z.ZodType {
  const known = envelopes.get(contract);
  if (known !== undefined) return known;
  const schema = envelopeOf(type, contract.data);
  envelopes.set(contract, schema);
  return schema;
}

/**
 * Reads an event of a topic. Fields that this version does not know are left out, so that a producer may be newer than
 * its consumers.
 * @param value the parsed JSON of the message
 * @throws EventError when the type is unknown or the event does not keep its contract.
 */
export function readEvent<Topic extends TopicName>(topic: Topic, value: unknown): EventOf<Topic> {
  const type = typeof value === 'object' && value !== null && 'type' in value ? String(value.type) : '(none)';
  const parsed = envelopeSchema(contractOf(topic, type), type).safeParse(value);
  if (!parsed.success) throw new EventError(topic, type, problemOf(parsed.error));
  return parsed.data as EventOf<Topic>;
}
