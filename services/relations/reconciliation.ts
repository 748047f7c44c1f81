import type { Directory } from './directory.ts';
import { accountFacts, faultOf, isDerived, isSingle, sessionFacts, teamFacts } from './facts.ts';
import type { Sessions } from './sessions.ts';
import type { TupleStore } from './tuple-store.ts';
import { keyOf, type Tuple } from './tuples.ts';

/** How a tuple differs from what its source says. */
export type DifferenceKind = 'missing' | 'extra' | 'wrong';

/** One tuple that is not as its source says. */
export interface Difference {
  readonly kind: DifferenceKind;
  readonly tuple: Tuple;
  /** In words. */
  readonly reason: string;
}

/** What a reconciliation found and did. */
export interface ReconciliationReport {
  /** Tuples that OpenFGA has. */
  readonly tuples: number;
  readonly differences: readonly Difference[];
  /** Tuples written and deleted. */
  readonly added: number;
  readonly removed: number;
}

/** What the reconciliation works with. */
export interface ReconciliationParts {
  readonly store: TupleStore;
  readonly directory: Directory;
  readonly sessions: Sessions;
  /** Called before a repair: what is about to be repaired is on record. */
  readonly record: (differences: readonly Difference[]) => Promise<void>;
}

/** Compares every tuple of OpenFGA with the sources, and repairs. Safe to repeat, to interrupt, and while both change. */
export class Reconciliation {
  readonly #parts: ReconciliationParts;

  constructor(parts: ReconciliationParts) {
    this.#parts = parts;
  }

  /** Compares, changes nothing. */
  async report(): Promise<ReconciliationReport> {
    const { tuples, differences } = await this.#compare();
    return { tuples, differences, added: 0, removed: 0 };
  }

  /** Compares and repairs. */
  async repair(): Promise<ReconciliationReport> {
    const { tuples, differences } = await this.#compare();
    if (differences.length === 0) return { tuples, differences, added: 0, removed: 0 };
    await this.#parts.record(differences);
    const missing = differences.filter(({ kind }) => kind === 'missing').map(({ tuple }) => tuple);
    const surplus = differences.filter(({ kind }) => kind !== 'missing').map(({ tuple }) => tuple);
    await this.#parts.store.write(missing, surplus);
    return { tuples, differences, added: missing.length, removed: surplus.length };
  }

  /**
   * OpenFGA is read first: what a source gains in the meantime is then at most written once more, and never deleted
   * because the source had been read before it was there.
   */
  async #compare(): Promise<{ tuples: number; differences: readonly Difference[] }> {
    const actual = new Map<string, Tuple>();
    for await (const tuple of this.#parts.store.all()) actual.set(keyOf(tuple), tuple);
    const { tenants, facts } = await this.#wanted();
    const places = new Map([...facts.values()].filter(isSingle).map((fact) => [placeOf(fact), fact]));
    const differences = [
      ...[...actual].flatMap(([key, tuple]) => surplusOf(tuple, facts.get(key), places, tenants)),
      ...[...facts]
        .filter(([key]) => !sound(actual.get(key)))
        .map(([, tuple]): Difference => ({ kind: 'missing', tuple, reason: 'its source has it' })),
    ];
    return { tuples: actual.size, differences };
  }

  async #wanted(): Promise<{ tenants: ReadonlySet<string>; facts: ReadonlyMap<string, Tuple> }> {
    const { directory, sessions } = this.#parts;
    const facts = new Map<string, Tuple>();
    const add = (tuples: readonly Tuple[]) => {
      for (const tuple of tuples) facts.set(keyOf(tuple), tuple);
    };
    const tenants = new Set(await directory.tenants());
    for (const tenant of tenants) {
      for (const team of await directory.teams(tenant)) add(teamFacts(tenant, team));
      for await (const account of directory.accounts(tenant)) add(accountFacts(account));
    }
    for await (const session of sessions.all()) {
      // A tenant whose sessions outlive it has no relations left.
      if (tenants.has(session.tenant)) add(sessionFacts(session));
    }
    return { tenants, facts };
  }
}

/** A derived tuple has no condition: one that has is not the fact that its source has. */
const sound = (tuple: Tuple | undefined): boolean => tuple !== undefined && tuple.condition === undefined;

function surplusOf(
  tuple: Tuple,
  wanted: Tuple | undefined,
  places: ReadonlyMap<string, Tuple>,
  tenants: ReadonlySet<string>,
): Difference[] {
  const fault = faultOf(tuple, tenants);
  if (fault !== undefined) return [{ kind: 'extra', tuple, reason: fault }];
  if (!isDerived(tuple)) return [];
  if (wanted !== undefined) {
    return sound(tuple) ? [] : [{ kind: 'wrong', tuple, reason: 'it has a condition that its source does not have' }];
  }
  const other = places.get(placeOf(tuple));
  if (other !== undefined) return [{ kind: 'wrong', tuple, reason: `its source says ${other.user}` }];
  return [{ kind: 'extra', tuple, reason: 'its source does not have it' }];
}

/** Where only one tuple can stand. */
const placeOf = ({ object, relation }: Tuple): string => `${object} ${relation}`;

/** A difference in one line, for logs and events. */
export const describeDifference = ({ kind, tuple, reason }: Difference): string =>
  `${kind}: ${tuple.user} ${tuple.relation} ${tuple.object} (${reason})`;
