import { EventError, type EventOf, readEvent } from '@somagent/events';
import type { IncomingMessage } from '@somagent/kit';
import { retentionDays } from '../warehouse/migrations.ts';
import type { Row } from '../warehouse/warehouse.ts';
import type { Evolution } from './evolution.ts';
import { eventRow, type IngestedTopic } from './rows.ts';

/** A message with what becomes of it. */
export interface Classified {
  readonly offset: bigint;
  /** Its row in the table of its topic; absent when it can't be read. */
  readonly row?: Row;
  /** Why it goes to the dead letters, if it is decided now. */
  readonly reason?: string;
  /** Its row among the dead letters, whether it is needed or not. */
  letter(reason: string): Row;
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
  async classify(message: IncomingMessage): Promise<Classified> {
    const { offset } = message;
    const letter = (reason: string) => letterOf(message, reason);
    const outcome = await this.#read(message);
    if (typeof outcome === 'string') return { offset, reason: outcome, letter };
    const row = {
      ...eventRow(message.topic as IngestedTopic, outcome as never),
      partition: message.partition,
      offset: Number(offset),
    };
    // With its row: a message that was young enough when its cut was made may come again when it is not.
    const reason = this.#outsideTime(outcome.time);
    return reason === undefined ? { offset, row, letter } : { offset, row, reason, letter };
  }

  /** The event, or why it can't be read. */
  async #read({ topic, value }: IncomingMessage): Promise<AnyEvent | string> {
    const parsed = parse(value);
    if (parsed === undefined) return 'is not JSON';
    const { type, version } = headOf(parsed);
    const problem = await this.#evolution.judge(topic as IngestedTopic, type, version);
    if (problem !== null) return problem;
    try {
      return readEvent(topic as IngestedTopic, parsed) as AnyEvent;
    } catch (error) {
      if (error instanceof EventError) return error.message;
      throw error;
    }
  }

  /** A wrong clock would make partitions that live for ever, or hundreds at once. */
  #outsideTime(time: string): string | undefined {
    const age = (this.#now() - Date.parse(time)) / dayMs;
    if (age < -1) return `time ${time} is more than a day ahead`;
    if (age > retentionDays + 1) return `time ${time} is beyond the retention of ${retentionDays} days`;
    return undefined;
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
