import type { Classified } from './classify.ts';
import { type Block, type Place, placeName } from './positions.ts';

/** One partition of one topic on its way into ClickHouse: what waits, and how far it is stored. */
export class Lane {
  readonly place: Place;
  readonly name: string;
  /** Offsets below were stored before this process began; a replay offers them again. */
  readonly #known: bigint;
  #next: bigint;
  #waiting: readonly Classified[] = [];
  #missed = 0n;

  /** @param next the position @param known where the position was; higher than `next` in a replay */
  constructor(place: Place, next: bigint, known = next) {
    this.place = place;
    this.name = placeName(place);
    this.#next = next;
    this.#known = known;
  }

  /** The position: everything before it is stored. */
  get next(): bigint {
    return this.#next;
  }

  /** Offsets that Kafka skipped: their messages were removed before they were read. */
  get missed(): bigint {
    return this.#missed;
  }

  /** The offset that was not taken yet. */
  get expected(): bigint {
    const last = this.#waiting.at(-1);
    return last === undefined ? this.#next : last.offset + 1n;
  }

  /** Takes messages that follow those it has; what it has had is left out. */
  take(messages: readonly Classified[]): void {
    const fresh: Classified[] = [];
    let expected = this.expected;
    for (const message of messages) {
      if (message.offset < expected) continue;
      if (expected > 0n) this.#missed += message.offset - expected;
      fresh.push(message);
      expected = message.offset + 1n;
    }
    this.#waiting = this.#waiting.length === 0 ? fresh : [...this.#waiting, ...fresh];
  }

  /** The longest beginning of what waits that belongs together. @param limit the most rows */
  block(limit: number): Block | undefined {
    const [start] = this.#waiting;
    if (start === undefined) return undefined;
    const { table, day } = start;
    const again = this.isAgain(start.offset);
    const end = this.#waiting.findIndex(
      (each) => each.table !== table || each.day !== day || this.isAgain(each.offset) !== again,
    );
    const own = this.#waiting.slice(0, Math.min(limit, end === -1 ? this.#waiting.length : end));
    const last = own.at(-1) ?? start;
    return { place: this.place, table, day, first: start.offset, last: last.offset, rows: own.map(({ row }) => row) };
  }

  /** Whether an offset was stored before this process began. */
  isAgain(offset: bigint): boolean {
    return offset < this.#known;
  }

  /** Everything up to `last` is stored. */
  reached(last: bigint): void {
    if (last < this.#next) return;
    this.#next = last + 1n;
    this.#waiting = this.#waiting.filter(({ offset }) => offset > last);
  }
}
