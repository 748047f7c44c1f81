import type { eventTables } from '../warehouse/migrations.ts';
import { database, type Parameters, type Row, type Warehouse } from '../warehouse/warehouse.ts';
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

interface Reached extends Found {
  readonly table: string;
  /** The part that has the last row: `day_oldest block_newest block_level`. */
  readonly part: string;
}

/**
 * So many blocks before the newest one that was seen are looked at again. ClickHouse numbers the blocks of a table in
 * the order in which they come; with replicas, one that comes at the same moment may be seen after one of a higher
 * number.
 */
const overlapping = 200;

/** The number of the newest block of a part; as text of few different values it is computed once per part. */
const newest = `toUInt64(substringIndex(substringIndex(_part, '_', 3), '_', -1))`;

/** The day of a block as ClickHouse names the partition of a table. */
const partitionOf = ({ day = '' }: Block): string => day.replaceAll('-', '');

/**
 * How far the blocks of one table and topic are stored. A table of a day has billions of rows: what is asked is in the
 * newest parts, and ClickHouse opens no other. The text is the same for all partitions, so that it is judged once, and
 * as plain as can be: most of such a question is its planning.
 */
function reachedIn([block]: readonly Block[], index: number): string {
  const table = block?.table ?? '';
  const kept =
    block?.day === undefined ? `topic = {topic${index}:String}` : `_partition_id in {days${index}:Array(String)}`;
  return `select '${table}' as table, {topic${index}:String} as origin, partition, toString(max(offset)) as last,
      argMax(_part, offset) as part
    from ${database}.${table}
    where ${kept} and ${newest} >= {part${index}:UInt64}
      and offset >= transform(partition, {partitions${index}:Array(UInt32)}, {firsts${index}:Array(UInt64)}, ${above})
    group by partition`;
}

/** Beyond every offset. */
const above = 'toUInt64(18446744073709551615)';

/** The last of each place. */
function byPlace(found: readonly Found[]): Map<string, bigint> {
  const places = new Map<string, bigint>();
  for (const each of found) {
    const [name, last] = [placeName(each), BigInt(each.last)];
    if (last >= (places.get(name) ?? 0n)) places.set(name, last);
  }
  return places;
}

/**
 * How far each partition is stored. The rows themselves say it: a block is stored whole or not at all, and none is
 * stored before the one ahead of it. Marks say it for partitions whose rows are older than the retention.
 */
export class Positions {
  readonly #warehouse: Warehouse;
  readonly #overlap: number;
  /** The newest block that was seen, by table and day. */
  readonly #newest = new Map<string, number>();

  constructor(warehouse: Warehouse, overlap = overlapping) {
    this.#warehouse = warehouse;
    this.#overlap = overlap;
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
   * those are left out of which nothing is there. One question, however many tables.
   * @param everywhere also in parts that are older than what was seen before
   */
  async reached(blocks: readonly Block[], everywhere: boolean): Promise<ReadonlyMap<string, bigint>> {
    const groups = [...Map.groupBy(blocks, ({ table, place }) => `${table} ${place.topic}`).values()];
    const parameters: Record<string, Parameters[string]> = {};
    const selects = groups.map((group, index) => {
      for (const [name, value] of Object.entries(this.#looked(group, everywhere)))
        parameters[`${name}${index}`] = value;
      return reachedIn(group, index);
    });
    const found = await this.#warehouse.rows<Reached & { readonly origin: string }>(
      selects.join(' union all '),
      parameters,
    );
    // Numbers begin anew where a table was made anew.
    if (everywhere) this.#newest.clear();
    for (const { table, part } of found) this.#see(table, part);
    return byPlace(found.map(({ origin, ...each }) => ({ ...each, topic: origin })));
  }

  #see(table: string, part: string): void {
    const [day, , block] = part.split('_');
    const key = `${table} ${day}`;
    this.#newest.set(key, Math.max(Number(block), this.#newest.get(key) ?? 0));
  }

  /** Parameters of {@link reachedIn}. */
  #looked(blocks: readonly Block[], everywhere: boolean): Parameters {
    const days = [...new Set(blocks.map(partitionOf))];
    const known = days.map((day) => this.#newest.get(`${blocks[0]?.table} ${day}`) ?? 0);
    return {
      topic: blocks[0]?.place.topic ?? '',
      partitions: blocks.map(({ place: { partition } }) => partition),
      firsts: blocks.map(({ first }) => Number(first)),
      ...(blocks[0]?.day !== undefined && { days }),
      part: everywhere ? 0 : Math.max(0, Math.min(...known) - this.#overlap),
    };
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
