import { database, type Warehouse } from '../warehouse/warehouse.ts';

/** A partition of a topic. */
export interface Place {
  readonly topic: string;
  readonly partition: number;
}

/** Offsets that are stored together, and what was decided about them. */
export interface Cut {
  readonly first: bigint;
  /** The last offset that belongs to it. */
  readonly last: bigint;
  /** Offsets that are no rows but dead letters, and why. */
  readonly aside: ReadonlyMap<bigint, string>;
  /** The process that made it. */
  readonly writer: string;
}

interface CutRow {
  readonly first: string;
  readonly last: string;
  readonly aside_offsets: readonly string[];
  readonly aside_reasons: readonly string[];
  readonly writer: string;
}

const columns = `toString(first) as first, toString(last) as last, arrayMap(o -> toString(o), aside_offsets) as aside_offsets,
  aside_reasons, writer`;
const where = 'topic = {topic:String} and partition = {partition:UInt32}';

/** The name of a partition in messages, tokens and maps. */
export const placeName = ({ topic, partition }: Place): string => `${topic}/${partition}`;

/**
 * Where each partition was cut into batches. The first cut that begins at an offset is the one that counts, whoever
 * else tries: so every process that ever writes this batch writes the same rows under the same token. The next cut is
 * made only after the rows of this one are stored; hence the newest cut is the position.
 */
export class Journal {
  readonly #warehouse: Warehouse;

  constructor(warehouse: Warehouse) {
    this.#warehouse = warehouse;
  }

  /** Where reading goes on, by {@link placeName}: at the beginning of the newest cut, whose rows may be missing. */
  async positions(): Promise<Map<string, bigint>> {
    const rows = await this.#warehouse.rows<{ topic: string; partition: number; next: string }>(
      `select topic, partition, toString(max(first)) as next from ${database}.cut group by topic, partition`,
    );
    return new Map(rows.map(({ next, ...place }) => [placeName(place), BigInt(next)]));
  }

  /** Makes a cut unless there is one with this beginning. @returns the one that counts */
  async claim(place: Place, { first, last, aside, writer }: Cut): Promise<Cut> {
    const row = {
      ...{ topic: place.topic, partition: place.partition, first: Number(first), last: Number(last), writer },
      ...{ aside_offsets: [...aside.keys()].map(Number), aside_reasons: [...aside.values()] },
    };
    await this.#warehouse.insert('cut', [row], `${placeName(place)}/${first}`);
    const [made] = await this.#warehouse.rows<CutRow>(
      `select ${columns} from ${database}.cut where ${where} and cut.first = {first:UInt64} order by at limit 1`,
      { topic: place.topic, partition: place.partition, first: String(first) },
    );
    if (made === undefined)
      throw new Error(`the cut of ${placeName(place)} at ${first} is not there after it was made`);
    return cutOf(made);
  }

  /** Beginning of the newest cut of a partition; undefined when there is none. */
  async newest(place: Place): Promise<bigint | undefined> {
    const [row] = await this.#warehouse.rows<{ cuts: number; newest: string }>(
      `select count() as cuts, toString(max(first)) as newest from ${database}.cut where ${where}`,
      { topic: place.topic, partition: place.partition },
    );
    return row === undefined || row.cuts === 0 ? undefined : BigInt(row.newest);
  }
}

function cutOf({ first, last, aside_offsets, aside_reasons, writer }: CutRow): Cut {
  return {
    first: BigInt(first),
    last: BigInt(last),
    aside: new Map(aside_offsets.map((offset, index) => [BigInt(offset), aside_reasons[index] ?? ''])),
    writer,
  };
}
