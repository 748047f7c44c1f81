import type { OpenFga, TupleChange } from './client.ts';
import type { ModelLocation } from './store.ts';
import { keyOf, type Tuple } from './tuples.ts';

/** Writes of this process are known as its own for this long, milliseconds: until the feed of changes has told them. */
const ownMemory = 60_000;

/** The tuples of the platform's store; remembers what it wrote itself. */
export class TupleStore {
  readonly #client: OpenFga;
  readonly #at: ModelLocation;
  readonly #own = new Map<string, number>();

  constructor(client: OpenFga, at: ModelLocation) {
    this.#client = client;
    this.#at = at;
  }

  /** Every tuple. */
  all(): AsyncIterable<Tuple> {
    return this.#client.tuples(this.#at.store);
  }

  /** Tuples of an object, or of a user with objects of a type (`team:`). */
  async find(filter: { readonly object: string; readonly user?: string }): Promise<readonly Tuple[]> {
    const found: Tuple[] = [];
    for await (const tuple of this.#client.tuples(this.#at.store, filter)) found.push(tuple);
    return found;
  }

  /** Writes and deletes; what is so already is no error. */
  async write(writes: readonly Tuple[], deletes: readonly Tuple[]): Promise<void> {
    if (writes.length + deletes.length === 0) return;
    this.#remember(writes, 'TUPLE_OPERATION_WRITE');
    this.#remember(deletes, 'TUPLE_OPERATION_DELETE');
    // Deleted first: a wrong tuple may differ from the right one by its condition only.
    if (deletes.length > 0) await this.#client.write(this.#at.store, this.#at.model, [], deletes);
    if (writes.length > 0) await this.#client.write(this.#at.store, this.#at.model, writes, []);
  }

  /** Makes the tuples of a scope what they should be. @returns how many were written and deleted. */
  async bring(actual: readonly Tuple[], wanted: readonly Tuple[]): Promise<{ added: number; removed: number }> {
    const [has, wants] = [new Set(actual.map(keyOf)), new Set(wanted.map(keyOf))];
    const writes = wanted.filter((tuple) => !has.has(keyOf(tuple)));
    const deletes = actual.filter((tuple) => !wants.has(keyOf(tuple)));
    await this.write(writes, deletes);
    return { added: writes.length, removed: deletes.length };
  }

  /** Changes after a token, or since a time, and the token to go on with. */
  changes(from: { readonly token: string } | { readonly since: Date }) {
    return this.#client.changes(this.#at.store, from);
  }

  /** Whether this process has made the change. */
  isOwn({ tuple_key, operation }: TupleChange): boolean {
    const at = this.#own.get(`${operation} ${keyOf(tuple_key)}`);
    return at !== undefined && performance.now() - at <= ownMemory;
  }

  #remember(tuples: readonly Tuple[], operation: TupleChange['operation']): void {
    const now = performance.now();
    for (const tuple of tuples) {
      const key = `${operation} ${keyOf(tuple)}`;
      // Inserted anew, so that the oldest stand first.
      this.#own.delete(key);
      this.#own.set(key, now);
    }
    for (const [key, at] of this.#own) {
      if (now - at <= ownMemory) break;
      this.#own.delete(key);
    }
  }
}
