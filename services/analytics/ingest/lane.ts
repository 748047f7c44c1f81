import type { IncomingMessage } from '@somagent/kit';
import { database, type Row, type Warehouse } from '../warehouse/warehouse.ts';
import type { Classified, Classifier } from './classify.ts';
import { type Cut, type Journal, type Place, placeName } from './journal.ts';
import { type IngestedTopic, tableOfTopic } from './rows.ts';

/** What a lane works with. */
export interface LaneParts {
  readonly warehouse: Warehouse;
  readonly journal: Journal;
  readonly classifier: Classifier;
  /** Names this process; no other process ever has the same. */
  readonly writer: string;
  /** The most messages of one cut. @default 20,000 */
  readonly batch?: number;
}

/** One partition of one topic on its way into its table, in order, each message once. */
export class Lane {
  readonly #parts: LaneParts;
  readonly #place: Place;
  readonly #table: string;
  #next: bigint;
  #waiting: Classified[] = [];
  #cut: Cut | undefined;
  /** Whether an attempt to store the open cut may have left rows. */
  #attempted = false;
  #missed = 0n;

  /** @param next the position: beginning of the newest cut, 0 when there is none. */
  constructor(parts: LaneParts, place: Place, next: bigint) {
    this.#parts = parts;
    this.#place = place;
    this.#table = tableOfTopic[place.topic as IngestedTopic];
    this.#next = next;
  }

  /** Offsets that Kafka skipped: their messages were removed before they were read. */
  get missed(): bigint {
    return this.#missed;
  }

  /**
   * Takes messages of this partition, in order; those it has had are left out. Resolves when all of them are stored,
   * save those of a cut whose other messages have not come yet: the position stays before them.
   * @throws Error when something is away; the same messages can be offered again.
   */
  async offer(messages: readonly IncomingMessage[]): Promise<void> {
    await this.#take(messages);
    while (this.#waiting.length > 0 && (await this.#step()));
  }

  async #take(messages: readonly IncomingMessage[]): Promise<void> {
    for (const message of messages) {
      const expected = this.#expected;
      if (message.offset < expected) continue;
      const classified = await this.#parts.classifier.classify(message);
      if (expected > 0n) this.#missed += message.offset - expected;
      this.#waiting.push(classified);
    }
  }

  get #expected(): bigint {
    const last = this.#waiting.at(-1);
    return last === undefined ? this.#next : last.offset + 1n;
  }

  /** Stores one cut. @returns false when some of its messages are not here yet. */
  async #step(): Promise<boolean> {
    this.#cut ??= await this.#claim();
    const cut = this.#cut;
    const last = this.#waiting.at(-1);
    if (last === undefined || last.offset < cut.last) return false;
    const batch = this.#waiting.filter(({ offset }) => offset <= cut.last);
    await this.#store(cut, batch);
    return true;
  }

  async #claim(): Promise<Cut> {
    const batch = this.#waiting.slice(0, this.#parts.batch ?? 20_000);
    const aside = new Map(batch.flatMap(({ offset, reason }) => (reason === undefined ? [] : [[offset, reason]])));
    const last = batch.at(-1)?.offset ?? this.#next;
    return this.#parts.journal.claim(this.#place, { first: this.#next, last, aside, writer: this.#parts.writer });
  }

  async #store(cut: Cut, batch: readonly Classified[]): Promise<void> {
    const fresh = cut.writer === this.#parts.writer && !this.#attempted;
    this.#attempted = true;
    if (!fresh) {
      const newest = await this.#parts.journal.newest(this.#place);
      // A later cut is made only when the rows of this one are stored.
      if (newest !== undefined && newest > cut.last) return this.#goOn(newest);
    }
    const rows = batch.flatMap((message) => rowOf(this.#place, cut, message));
    const letters = batch.flatMap((message) => letterOf(cut, message));
    await this.#insert('dead_letter', letters, cut, fresh);
    await this.#insert(this.#table, rows, cut, fresh);
    this.#goOn(cut.last + 1n);
  }

  #goOn(next: bigint): void {
    this.#next = next;
    this.#waiting = this.#waiting.filter(({ offset }) => offset >= next);
    this.#cut = undefined;
    this.#attempted = false;
  }

  /** The token keeps two processes apart that store at the same time; what is there from earlier is looked up. */
  async #insert(table: string, rows: readonly Row[], { first, last }: Cut, fresh: boolean): Promise<void> {
    if (rows.length === 0) return;
    const there = fresh ? new Set<number>() : await this.#stored(table, first, last);
    const missing = rows.filter(({ offset }) => !there.has(offset as number));
    if (missing.length === 0) return;
    await this.#parts.warehouse.insert(table, missing, `${placeName(this.#place)}/${first}-${last}`);
  }

  async #stored(table: string, first: bigint, last: bigint): Promise<ReadonlySet<number>> {
    const { topic, partition } = this.#place;
    const rows = await this.#parts.warehouse.rows<{ offset: number }>(
      `select offset from ${database}.${table}
      where partition = {partition:UInt32} and offset between {first:UInt64} and {last:UInt64}
      ${table === 'dead_letter' ? 'and topic = {topic:String}' : ''}`,
      { topic, partition, first: String(first), last: String(last) },
    );
    return new Set(rows.map(({ offset }) => offset));
  }
}

/** What the cut says counts, also where this process would decide otherwise. */
function rowOf(place: Place, cut: Cut, { offset, row, reason }: Classified): readonly Row[] {
  if (cut.aside.has(offset)) return [];
  if (row !== undefined) return [row];
  throw new Error(
    `${placeName(place)} offset ${offset} was readable to the process that made its cut and is not here (${reason}). ` +
      'Deploy that version of the service again, or a newer one',
  );
}

function letterOf(cut: Cut, { offset, letter }: Classified): readonly Row[] {
  const reason = cut.aside.get(offset);
  return reason === undefined ? [] : [letter(reason)];
}
