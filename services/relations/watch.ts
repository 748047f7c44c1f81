import { setTimeout as sleep } from 'node:timers/promises';
import { type Logger, messageOf } from '@somagent/kit';
import type { TupleChange } from './client.ts';
import type { Directory } from './directory.ts';
import { accountFacts, faultOf, isDerived, sessionFacts, teamFacts } from './facts.ts';
import type { Difference } from './reconciliation.ts';
import type { Sessions } from './sessions.ts';
import type { TupleStore } from './tuple-store.ts';
import { keyOf, parseName, type Tuple } from './tuples.ts';

/** What the watch works with. */
export interface WatchParts {
  readonly store: TupleStore;
  readonly directory: Directory;
  readonly sessions: Sessions;
  /** Called before a repair: what is about to be repaired is on record. */
  readonly record: (differences: readonly Difference[]) => Promise<void>;
  readonly log: Logger;
  /** Between two looks, milliseconds. @default 500 */
  readonly interval?: number;
}

/** A change that commits late is found although later ones were seen before it: the feed is read again this far back. */
const overlap = 5000;

/**
 * Follows the changes of OpenFGA that this service did not make: a derived tuple that its source does not have is
 * deleted, one that was deleted and that its source has is written again, and one that crosses tenants is deleted.
 * Grants, which are kept in OpenFGA itself, are only logged.
 */
export class TupleWatch {
  readonly #parts: WatchParts;
  readonly #stop = new AbortController();
  readonly #seen = new Map<string, number>();
  #running: Promise<void> | undefined;

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  /** Begins; errors are logged and tried again. */
  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log, interval = 500 } = this.#parts;
    let since = new Date(Date.now() - overlap);
    while (!this.#stop.signal.aborted) {
      const next = new Date(Date.now() - overlap);
      try {
        await this.look(since);
        since = next;
      } catch (error) {
        // Nothing is lost: the next look begins where this one did.
        log.warn({ reason: messageOf(error) }, 'the changes of OpenFGA cannot be followed');
      }
      await sleep(interval, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  /** Handles the changes since a time. @returns what was wrong with them. */
  async look(since: Date): Promise<readonly Difference[]> {
    const found: Difference[] = [];
    for (const change of await this.#foreign(since)) found.push(...(await this.#judge(change)));
    if (found.length === 0) return found;
    await this.#parts.record(found);
    const tuples = (missing: boolean) =>
      found.filter(({ kind }) => (kind === 'missing') === missing).map(({ tuple }) => tuple);
    await this.#parts.store.write(tuples(true), tuples(false));
    return found;
  }

  /** Changes that this process did not make and has not judged yet. */
  async #foreign(since: Date): Promise<readonly TupleChange[]> {
    const foreign: TupleChange[] = [];
    let from: Parameters<TupleStore['changes']>[0] = { since };
    for (;;) {
      const { changes, token } = await this.#parts.store.changes(from);
      foreign.push(...changes.filter((change) => !this.#parts.store.isOwn(change) && this.#isNew(change)));
      if (changes.length === 0 || token === '') return foreign;
      from = { token };
    }
  }

  #isNew({ tuple_key, operation, timestamp }: TupleChange): boolean {
    const key = `${timestamp} ${operation} ${keyOf(tuple_key)}`;
    const now = performance.now();
    if (this.#seen.has(key)) return false;
    this.#seen.set(key, now);
    for (const [old, at] of this.#seen) {
      if (now - at <= 10 * overlap) break;
      this.#seen.delete(old);
    }
    return true;
  }

  async #judge({ tuple_key: tuple, operation }: TupleChange): Promise<readonly Difference[]> {
    const { log, directory } = this.#parts;
    const written = operation === 'TUPLE_OPERATION_WRITE';
    const fault = written ? faultOf(tuple, new Set(await directory.tenants())) : undefined;
    if (fault !== undefined) return [{ kind: 'extra', tuple, reason: fault }];
    const tenant = parseName(tuple.object)?.tenant;
    if (!isDerived(tuple)) {
      log.info({ tenant, tuple: keyOf(tuple), written }, 'a grant was changed in OpenFGA');
      return [];
    }
    const wanted = (await this.#sourceOf(tuple)).some((fact) => keyOf(fact) === keyOf(tuple));
    if (wanted === written) return [];
    const reason = written ? 'its source does not have it' : 'it was deleted, and its source has it';
    return [{ kind: written ? 'extra' : 'missing', tuple, reason }];
  }

  /** The facts that the source of a derived tuple has about it. */
  async #sourceOf(tuple: Tuple): Promise<readonly Tuple[]> {
    const { directory, sessions } = this.#parts;
    const [object, user] = [parseName(tuple.object), parseName(tuple.user)];
    if (object === undefined || user === undefined) return [];
    const { tenant } = object;
    if (object.type === 'session') {
      const session = await sessions.session(tenant, object.id);
      return session === undefined ? [] : sessionFacts(session);
    }
    if (object.type === 'team' && user.type === 'tenant') {
      return (await directory.teams(tenant)).flatMap((team) => teamFacts(tenant, team));
    }
    if (user.type === 'user') {
      const account = await directory.account(tenant, user.id);
      return account === undefined ? [] : accountFacts(account);
    }
    return this.#personas(tenant);
  }

  async #personas(tenant: string): Promise<readonly Tuple[]> {
    const facts: Tuple[] = [];
    for await (const account of this.#parts.directory.accounts(tenant)) facts.push(...accountFacts(account));
    return facts;
  }
}
