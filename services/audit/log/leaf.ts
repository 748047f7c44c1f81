import { hash } from 'node:crypto';
import type { EventEnvelope } from '@somagent/events';
import canonicalize from 'canonicalize';
import { z } from 'zod';
import { leafHash } from '../merkle/index.ts';

/** An entry on its way into the log. */
export interface Leaf {
  /** By this an event that comes again is recognized. */
  readonly eventId: string;
  /** Whom it concerns; null is the platform itself. */
  readonly tenant: string | null;
  readonly requestId: string | null;
  readonly topic: string;
  /** The bytes that the tree hashes, UTF-8: canonical JSON (RFC 8785). */
  readonly text: string;
  readonly hash: Buffer;
}

/** A message as Kafka has it. */
export interface SourceMessage {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** Null where Kafka has none. */
  readonly value: Buffer | null;
}

/** What a column and its index can hold: Postgres knows no NUL in a text. */
const column = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[^\0]+$/)
  .nullable();

/** What the log needs of an event's envelope; all the rest is kept as it came. */
const envelope = z.looseObject({ id: z.guid(), tenant: column, requestId: column });

/** Leaf of an event: `{"event":…,"topic":…}`. @throws Error when the event can't be written as canonical JSON */
export function leafOf(topic: string, event: Pick<EventEnvelope, 'id' | 'tenant' | 'requestId'>): Leaf {
  const { id, tenant, requestId } = event;
  return made({ eventId: id.toLowerCase(), tenant, requestId, topic }, { event, topic });
}

/**
 * Leaf of a message. One that is no event is kept too, in base64, under the platform: whoever can produce to a topic
 * must be able neither to stop the log nor to leave something out of it.
 */
export function leafOfMessage({ topic, partition, offset, value }: SourceMessage): Leaf {
  const bytes = value ?? Buffer.alloc(0);
  try {
    return leafOf(topic, parse(bytes));
  } catch {
    const content = { offset: String(offset), partition, topic, unreadable: bytes.toString('base64') };
    return made({ eventId: idFrom(JSON.stringify(content)), tenant: null, requestId: null, topic }, content);
  }
}

/** The event as it came: what the schema made of it could lack something. */
function parse(bytes: Buffer): z.output<typeof envelope> {
  const event: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  envelope.parse(event);
  return event as z.output<typeof envelope>;
}

/** The same leaf under an identifier made from its content: for one that comes with the id of a different event. */
export const underOwnId = (leaf: Leaf): Leaf => ({ ...leaf, eventId: idFrom(leaf.text) });

function made(head: Omit<Leaf, 'text' | 'hash'>, content: object): Leaf {
  const text = canonicalize(content) as string;
  return { ...head, text, hash: leafHash(Buffer.from(text)) };
}

/** A UUID of version 8 (RFC 9562) from a hash. */
function idFrom(text: string): string {
  const hex = hash('sha256', text);
  const variant = '89ab'[Number.parseInt(hex.charAt(16), 16) % 4];
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
