import type { eventTables } from '../warehouse/migrations.ts';
import { database, type Row, type Warehouse } from '../warehouse/warehouse.ts';
import { tableOfTopic } from './rows.ts';

/** A partition of a topic. */
export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** Messages that follow each other in one partition and are stored together: in one table, in one day of it. */
export interface Block {
  readonly place: Place;
  readonly table: (typeof eventTables)[number];
  /** Day of every row, `2026-10-01`; absent for dead letters, whose day is that of their storing. */
  readonly day?: string | undefined;
  readonly first: bigint;
  readonly last: bigint;
  readonly rows: readonly Row[];
}

/** The name of a partition in messages, tokens and maps. */
export const placeName = ({ topic, partition }: Place): string => `${topic}/${partition}`;

interface Found extends Place {
  readonly last: string;
}

const byPlace = (found: readonly Found[]) => new Map(found.map((each) => [placeName(each), BigInt(each.last)]));

/**
 * How far each partition is stored. The rows themselves say it: a block is stored whole or not at all, and none is
 * stored before the one ahead of it. Marks say it for partitions whose rows are older than the retention.
 */
export class Positions {
  readonly #warehouse: Warehouse;

  constructor(warehouse: Warehouse) {
    this.#warehouse = warehouse;
  }

  /** Where reading goes on, by {@link placeName}. */
  async all(): Promise<Map<string, bigint>> {
    const tables = Object.entries(tableOfTopic).map(
      ([topic, table]) =>
        `select '${topic}' as topic, partition, max(offset) + 1 as next from ${database}.${table} group by partition`,
    );
    const rows = await this.#warehouse.rows<Found>(
      `select topic, partition, toString(max(next)) as last from (
        ${tables.join(' union all ')}
        union all select topic, partition, max(offset) + 1 as next from ${database}.dead_letter group by topic, partition
        union all select topic, partition, max(first) as next from ${database}.cut group by topic, partition
      ) group by topic, partition`,
    );
    return byPlace(rows);
  }

  /** Notes positions, so that they outlive their rows. */
  async mark(positions: ReadonlyMap<string, bigint>): Promise<void> {
    const rows = [...positions].map(([name, next]) => {
      const [topic, partition] = name.split('/');
      return { topic, partition: Number(partition), first: Number(next), last: Number(next), writer: 'mark' };
    });
    if (rows.length > 0) await this.#warehouse.insert('cut', rows);
  }

  /**
   * The last stored offset of the partition of each block, from the beginning of the block on, by {@link placeName};
   * those are left out of which nothing is there.
   */
  async reached(blocks: readonly Block[]): Promise<ReadonlyMap<string, bigint>> {
    const groups = Map.groupBy(blocks, ({ table, place }) => `${table} ${place.topic}`);
    const found = await Promise.all([...groups.values()].map((group) => this.#reachedIn(group)));
    return byPlace(found.flat());
  }

  async #reachedIn(blocks: readonly Block[]): Promise<readonly Found[]> {
    const [{ table, place } = { table: 'usage', place: { topic: '' } }] = blocks;
    const days = [...new Set(blocks.flatMap(({ day }) => day ?? []))];
    const parameters: Record<string, string | readonly string[]> = { topic: place.topic, days };
    const each = blocks.map(({ place: { partition }, first }, index) => {
      parameters[`first${index}`] = String(first);
      return `partition = ${partition} and offset >= {first${index}:UInt64}`;
    });
    return this.#warehouse.rows<Found>(
      `select {topic:String} as topic, partition, toString(max(offset)) as last from ${database}.${table}
      where (${each.join(' or ')})
      ${days.length > 0 ? 'and toDate(time) in {days:Array(Date)}' : 'and dead_letter.topic = {topic:String}'}
      group by partition`,
      parameters,
    );
  }

  /** Offsets of a block that are stored, one by one. */
  async stored({ table, place, first, last }: Block): Promise<ReadonlySet<number>> {
    const rows = await this.#warehouse.rows<{ offset: number }>(
      `select offset from ${database}.${table}
      where partition = {partition:UInt32} and offset between {first:UInt64} and {last:UInt64}
      ${table === 'dead_letter' ? 'and topic = {topic:String}' : ''}`,
      { ...place, first: String(first), last: String(last) },
    );
    return new Set(rows.map(({ offset }) => offset));
  }
}
