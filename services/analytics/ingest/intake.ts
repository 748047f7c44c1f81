import type { IncomingMessage } from '@somagent/kit';
import type { Row, Warehouse } from '../warehouse/warehouse.ts';
import type { Classifier } from './classify.ts';
import { Lane } from './lane.ts';
import { type Block, type Place, Positions, placeName } from './positions.ts';
import { columnsOf } from './rows.ts';

/** What an intake works with. */
export interface IntakeParts {
  readonly warehouse: Warehouse;
  readonly classifier: Classifier;
  /** The most rows of one block. @default 20,000 */
  readonly batch?: number;
  /** How far each partition is stored, by `topic/partition`. */
  readonly positions: ReadonlyMap<string, bigint>;
  /** Takes messages below their positions again, and stores those that are missing. @default false */
  readonly replay?: boolean;
}

/**
 * Stores messages, each once, whoever else does the same. The token of a block is where it begins: of all blocks that
 * begin there the first one is stored, and the others are dropped by ClickHouse. So after storing, the rows are asked
 * how far they go, and that is where the next block begins.
 */
export class Intake {
  readonly #parts: IntakeParts;
  readonly #positions: Positions;
  readonly #lanes = new Map<string, Lane>();
  /** Whether rows may be there of which this process does not know. */
  #doubtful = false;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
    this.#positions = new Positions(parts.warehouse);
  }

  /** Messages that Kafka had removed before they were read. */
  get missed(): number {
    return [...this.#lanes.values()].reduce((sum, { missed }) => sum + Number(missed), 0);
  }

  /** Where it goes on, by `topic/partition`. */
  get positions(): ReadonlyMap<string, bigint> {
    return new Map([...this.#lanes].map(([name, { next }]) => [name, next]));
  }

  /**
   * Takes messages, those of a partition in order; those it has had are left out. Resolves when all are stored.
   * @throws Error when something is away; the same messages can be offered again.
   */
  async offer(messages: readonly IncomingMessage[]): Promise<void> {
    await Promise.all([...Map.groupBy(messages, placeName)].map(([name, own]) => this.#take(name, own)));
    if (this.#doubtful) await this.#settle(this.#blocks(), false);
    for (let blocks = this.#blocks(); blocks.length > 0; blocks = this.#blocks()) await this.#store(blocks);
  }

  async #take(name: string, messages: readonly IncomingMessage[]): Promise<void> {
    const [first] = messages;
    if (first === undefined) return;
    const lane = this.#lanes.get(name) ?? this.#open(name, first);
    const { expected } = lane;
    const fresh = messages.filter(({ offset }) => offset >= expected);
    lane.take(await this.#parts.classifier.classify(fresh));
  }

  #open(name: string, { topic, partition }: Place): Lane {
    const known = this.#parts.positions.get(name) ?? 0n;
    const lane = new Lane({ topic, partition }, this.#parts.replay ? 0n : known, known);
    this.#lanes.set(name, lane);
    return lane;
  }

  #blocks(): readonly Block[] {
    return [...this.#lanes.values()].flatMap((lane) => lane.block(this.#parts.batch ?? 20_000) ?? []);
  }

  async #store(blocks: readonly Block[]): Promise<void> {
    this.#doubtful = true;
    const done = await Promise.allSettled(blocks.map((block) => this.#insert(block)));
    const failed = done.find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
    await this.#settle(blocks, true);
  }

  async #insert(block: Block): Promise<void> {
    if (this.#laneOf(block).isAgain(block.first)) return this.#mend(block);
    await this.#insertRows(block, block.rows, `${placeName(block.place)}/${block.first}`);
  }

  /** Stores what is missing of a block that was stored once. */
  async #mend(block: Block): Promise<void> {
    const there = await this.#positions.stored(block);
    const missing = block.rows.filter(({ offset }) => !there.has(offset as number));
    if (missing.length === 0) return;
    const token = `${placeName(block.place)}/${missing[0]?.offset}-${missing.at(-1)?.offset}`;
    await this.#insertRows(block, missing, token);
  }

  #insertRows({ table }: Block, rows: readonly Row[], token: string): Promise<void> {
    return this.#parts.warehouse.insertColumns(table, columnsOf[table], rows, token);
  }

  /** Goes on where the rows end. @param complete whether the beginning of each block has to be there */
  async #settle(blocks: readonly Block[], complete: boolean): Promise<void> {
    const [again, fresh] = [true, false].map((wanted) =>
      blocks.filter((block) => this.#laneOf(block).isAgain(block.first) === wanted),
    ) as [Block[], Block[]];
    const reached = fresh.length === 0 ? new Map<string, bigint>() : await this.#positions.reached(fresh, !complete);
    for (const block of fresh) {
      const last = reached.get(placeName(block.place));
      if (last !== undefined) this.#laneOf(block).reached(last);
      else if (complete) throw new NotThere(block);
    }
    if (complete) for (const block of again) this.#laneOf(block).reached(block.last);
    this.#doubtful = false;
  }

  #laneOf({ place }: Block): Lane {
    const lane = this.#lanes.get(placeName(place));
    if (lane === undefined) throw new Error(`${placeName(place)} has no lane`);
    return lane;
  }
}

/** A replica that does not have the rows yet, or rows that were removed as they were stored. */
class NotThere extends Error {
  constructor({ place, table, first, last }: Block) {
    super(
      `offsets ${first} to ${last} of ${placeName(place)} were stored in ${table} and are not there. They are offered ` +
        'again; if it stays so, look at the replicas of ClickHouse and restart analytics',
    );
    this.name = 'NotThere';
  }
}
