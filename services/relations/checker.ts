import { type OpenFga, RelationsUnavailable } from './client.ts';
import type { ModelLocation } from './store.ts';
import { parseName, type RelationSubject, type Tuple, tenantOf, userOf } from './tuples.ts';

/** What OpenFGA said, and how old that is. */
export interface RelationAnswer {
  readonly held: boolean;
  /** Milliseconds since the question was asked. */
  readonly ageMs: number;
}

/** How an answer is used. */
export interface CheckOptions {
  /**
   * `write` (the default) takes an answer of at most a second, or fails. `read` takes, while OpenFGA is away, the last
   * answer of at most {@link CheckerOptions.readGrace}.
   */
  readonly use?: 'read' | 'write';
}

/** Options of {@link RelationChecker}. */
export interface CheckerOptions {
  readonly client: OpenFga;
  /** Where store and model are; asked until it succeeds once. */
  readonly locate: () => Promise<ModelLocation>;
  /**
   * Facts of the system of record about an object that the subject was refused: its event may still be on its way.
   * They count for that question only. @default none
   */
  readonly facts?: (subject: RelationSubject, object: string) => Promise<readonly Tuple[]>;
  /** How long an answer is used, milliseconds. @default 1000 */
  readonly staleness?: number;
  /** How old an answer may be that is used for reading while OpenFGA is away, milliseconds. @default 60000 */
  readonly readGrace?: number;
  /** Answers kept. @default 50000 */
  readonly capacity?: number;
}

interface Remembered<Value> {
  readonly value: Value;
  readonly askedAt: number;
  /** How often it was used. */
  uses: number;
}

/**
 * An answer that was used so often is asked for anew, in the background, from this part of its time on: requests that
 * come in numbers need not wait for OpenFGA once a second.
 */
const often = { uses: 8, age: 0.6 } as const;

/**
 * Asks OpenFGA whether a subject has a relation to an object of its own tenant. Answers are kept for a second at most,
 * counted from the question; questions asked at the same time are asked once, and those that are asked all the time
 * before the answer is too old.
 */
export class RelationChecker {
  readonly #options: CheckerOptions;
  readonly #held: Memory<boolean>;
  readonly #visible: Memory<ReadonlySet<string>>;
  #location: ModelLocation | undefined;

  constructor(options: CheckerOptions) {
    const { capacity = 50_000, staleness = 1000, readGrace = 60_000 } = options;
    this.#options = options;
    this.#held = new Memory({ capacity, staleness, readGrace });
    this.#visible = new Memory({ capacity: Math.ceil(capacity / 50), staleness, readGrace });
  }

  /** Whether store and model are known. */
  get ready(): boolean {
    return this.#location !== undefined;
  }

  /** For a readiness check. @throws Error that says what is missing. */
  async ensureReady(): Promise<void> {
    await this.#locate();
  }

  /**
   * @param object its name, such as `session:acme/3f…`. One of another tenant is refused without a question.
   * @throws RelationsUnavailable when OpenFGA does not answer and no answer is recent enough.
   */
  async check(
    subject: RelationSubject,
    relation: string,
    object: string,
    { use = 'write' }: CheckOptions = {},
  ): Promise<RelationAnswer> {
    if (tenantOf(object) !== subject.tenant) return { held: false, ageMs: 0 };
    const user = userOf(subject);
    const { value, ageMs } = await this.#held.get(`${object} ${relation} ${user}`, use, () =>
      this.#ask(subject, { user, relation, object }),
    );
    return { held: value, ageMs };
  }

  /** Answers for many objects, in order; those that are not known are asked for together. */
  async checkAll(
    subject: RelationSubject,
    relation: string,
    objects: readonly string[],
  ): Promise<readonly RelationAnswer[]> {
    const user = userOf(subject);
    const own = objects.filter((object) => tenantOf(object) === subject.tenant);
    const unknown = own.filter((object) => !this.#held.fresh(`${object} ${relation} ${user}`));
    const askedAt = performance.now();
    if (unknown.length > 0) {
      const { store, model } = await this.#locate();
      const questions = unknown.map((object) => ({ tuple: { user, relation, object } }));
      const answers = await this.#options.client.checkAll(store, model, questions);
      unknown.forEach((object, index) => {
        // What is refused here is asked for with its facts by check().
        if (answers[index]) this.#held.keep(`${object} ${relation} ${user}`, { value: true, askedAt, uses: 0 });
      });
    }
    return Promise.all(objects.map((object) => this.check(subject, relation, object)));
  }

  /**
   * Ids of the objects of a type to which the subject has the relation: what a list may show. OpenFGA lists at most
   * 1000; lists of sessions, which grow without end, filter in SQL by owner and team instead.
   */
  async visible(
    subject: RelationSubject,
    relation: string,
    type: string,
    { use = 'read' }: CheckOptions = {},
  ): Promise<ReadonlySet<string>> {
    const user = userOf(subject);
    const ask = async () => {
      const { store, model } = await this.#locate();
      const names = await this.#options.client.listObjects(store, model, { user, relation, type });
      const own = names.map(parseName).filter((name) => name?.tenant === subject.tenant);
      return new Set(own.flatMap((name) => (name ? [name.id] : [])));
    };
    return (await this.#visible.get(`${type} ${relation} ${user}`, use, ask)).value;
  }

  async #ask(subject: RelationSubject, tuple: Tuple): Promise<boolean> {
    const { client, facts } = this.#options;
    const { store, model } = await this.#locate();
    if (await client.check(store, model, { tuple })) return true;
    const contextual = (await facts?.(subject, tuple.object)) ?? [];
    const own = contextual.filter(({ user, object }) => tenantOf(user) === subject.tenant && object === tuple.object);
    return own.length > 0 && client.check(store, model, { tuple, contextual: own });
  }

  async #locate(): Promise<ModelLocation> {
    this.#location ??= await this.#options.locate();
    return this.#location;
  }
}

interface MemoryOptions {
  readonly capacity: number;
  readonly staleness: number;
  readonly readGrace: number;
}

/** Answers by question, the oldest forgotten first. */
class Memory<Value> {
  readonly #options: MemoryOptions;
  readonly #answers = new Map<string, Remembered<Value>>();
  readonly #asking = new Map<string, Promise<Remembered<Value>>>();

  constructor(options: MemoryOptions) {
    this.#options = options;
  }

  /** Whether an answer is recent enough for every use. */
  fresh(key: string): boolean {
    const known = this.#answers.get(key);
    return known !== undefined && performance.now() - known.askedAt <= this.#options.staleness;
  }

  keep(key: string, answer: Remembered<Value>): void {
    this.#answers.delete(key);
    this.#answers.set(key, answer);
    const [oldest] = this.#answers.keys();
    if (this.#answers.size > this.#options.capacity && oldest !== undefined) this.#answers.delete(oldest);
  }

  async get(
    key: string,
    use: 'read' | 'write',
    ask: () => Promise<Value>,
  ): Promise<{ readonly value: Value; readonly ageMs: number }> {
    const known = this.#answers.get(key);
    if (known !== undefined && this.fresh(key)) {
      this.#used(key, known, ask);
      return aged(known);
    }
    const since = performance.now();
    try {
      const answer = await this.#once(key, ask);
      // One that was asked before may have come too late.
      const isLate = answer.askedAt < since && performance.now() - answer.askedAt > this.#options.staleness;
      return aged(isLate ? await this.#once(key, ask) : answer);
    } catch (error) {
      const usable = known !== undefined && performance.now() - known.askedAt <= this.#options.readGrace;
      if (use === 'read' && usable && error instanceof RelationsUnavailable) return aged(known);
      throw error;
    }
  }

  /** Counts a use. Should the question fail, so many uses pass until the next. */
  #used(key: string, known: Remembered<Value>, ask: () => Promise<Value>): void {
    known.uses += 1;
    const isOld = performance.now() - known.askedAt > this.#options.staleness * often.age;
    if (known.uses < often.uses || !isOld) return;
    known.uses = 0;
    this.#once(key, ask).catch(() => undefined);
  }

  /** Asks unless the same question is on its way; an answer counts from the moment of the question. */
  #once(key: string, ask: () => Promise<Value>): Promise<Remembered<Value>> {
    const asking = this.#asking.get(key);
    if (asking !== undefined) return asking;
    const askedAt = performance.now();
    const question = ask()
      .then((value) => {
        const answer = { value, askedAt, uses: 0 };
        this.keep(key, answer);
        return answer;
      })
      .finally(() => this.#asking.delete(key));
    this.#asking.set(key, question);
    return question;
  }
}

const aged = <Value>({ value, askedAt }: Remembered<Value>) => ({
  value,
  ageMs: Math.round((performance.now() - askedAt) * 10) / 10,
});
