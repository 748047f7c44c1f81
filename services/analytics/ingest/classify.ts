import { EventError, type EventOf, readEvent } from '@somagent/events';
import type { IncomingMessage } from '@somagent/kit';
import { retentionDays } from '../warehouse/migrations.ts';
import type { Row } from '../warehouse/warehouse.ts';
import type { Evolution } from './evolution.ts';
import type { Block } from './positions.ts';
import { eventRow, type IngestedTopic, tableOfTopic } from './rows.ts';

/** A message with what becomes of it. */
export interface Classified {
  readonly offset: bigint;
  /** Table of its topic, or that of the dead letters. */
  readonly table: Block['table'];
  /** Day of the row, `2026-10-01`; absent for a dead letter. */
  readonly day?: string;
  readonly row: Row;
}

const dayMs = 24 * 3600 * 1000;

type AnyEvent = { [Topic in IngestedTopic]: EventOf<Topic> }[IngestedTopic];

/** Turns messages into rows. */
export class Classifier {
  readonly #evolution: Evolution;
  readonly #now: () => number;

  constructor(evolution: Evolution, now: () => number = Date.now) {
    this.#evolution = evolution;
    this.#now = now;
  }

  /** @throws SchemasAway when only the registry could tell. */
  async classify(messages: readonly IncomingMessage[]): Promise<readonly Classified[]> {
    const classified: Classified[] = [];
    for (const message of messages) {
      const read = this.#read(message);
      classified.push(this.#judged(message, read instanceof Promise ? await read : read));
    }
    return classified;
  }

  #judged(message: IncomingMessage, outcome: AnyEvent | string): Classified {
    const { offset, partition } = message;
    const reason = typeof outcome === 'string' ? outcome : this.#outsideTime(outcome.time);
    if (reason !== undefined || typeof outcome === 'string')
      return { offset, table: 'dead_letter', row: letterOf(message, reason ?? '') };
    const topic = message.topic as IngestedTopic;
    const row = { ...eventRow(topic, outcome as never), partition, offset: Number(offset) };
    return { offset, table: tableOfTopic[topic], day: outcome.time.slice(0, 10), row };
  }

  /** The event, or why it can't be read; a promise only where the registry has to be asked. */
  #read({ topic, value }: IncomingMessage): AnyEvent | string | Promise<AnyEvent | string> {
    const parsed = parse(value);
    if (parsed === undefined) return 'is not JSON';
    const { type, version } = headOf(parsed);
    const own = topic as IngestedTopic;
    const problem = this.#evolution.judge(own, type, version);
    if (problem instanceof Promise) return problem.then((reason) => reason ?? read(own, parsed));
    return problem ?? read(own, parsed);
  }

  /** A wrong clock would make partitions that live for ever, or hundreds at once. */
  #outsideTime(time: string): string | undefined {
    const age = (this.#now() - Date.parse(time)) / dayMs;
    if (age < -1) return `time ${time} is more than a day ahead`;
    if (age > retentionDays) return `time ${time} is beyond the retention of ${retentionDays} days`;
    return undefined;
  }
}

function read(topic: IngestedTopic, parsed: unknown): AnyEvent | string {
  try {
    return readEvent(topic, parsed) as AnyEvent;
  } catch (error) {
    if (error instanceof EventError) return error.message;
    throw error;
  }
}

function parse(value: Buffer): unknown {
  try {
    return JSON.parse(value.toString());
  } catch {
    return undefined;
  }
}

function headOf(value: unknown): { readonly type: string; readonly version: number } {
  const { type, version } = (value ?? {}) as { readonly type?: unknown; readonly version?: unknown };
  return { type: String(type), version: typeof version === 'number' ? version : 0 };
}

function letterOf({ topic, partition, offset, key, value }: IncomingMessage, reason: string): Row {
  const tenant = key.slice(0, Math.max(0, key.indexOf('/')));
  return {
    topic,
    partition,
    offset: Number(offset),
    tenant: tenant === 'platform' ? '' : tenant,
    reason,
    key,
    value: value.toString(),
  };
}
