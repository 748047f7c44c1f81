import { log } from '../log.ts';
import type { Difference } from './difference.ts';

/** What is done to one object of the realm. */
export interface Change {
  readonly action: 'create' | 'update' | 'remove';
  /** What it is: `client`, `role`, `mapper` … */
  readonly kind: string;
  readonly name: string;
  /** Which fields were not as declared; none for what is created or removed as a whole. */
  readonly fields: readonly Difference[];
}

/** Applies what differs, or only lists it. */
export type RealmMode = 'apply' | 'report';

/** Collects the changes of one run; every write to Keycloak goes through {@link RealmChanges.make}. */
export class RealmChanges {
  readonly mode: RealmMode;
  readonly #made: Change[] = [];

  constructor(mode: RealmMode) {
    this.mode = mode;
  }

  get all(): readonly Change[] {
    return this.#made;
  }

  /** Lists a change and, unless this run only reports, makes it. @returns what `write` did, undefined in a report */
  async make<T>(change: Change, write: () => Promise<T>): Promise<T | undefined> {
    this.#made.push(change);
    const { action, kind, name, fields } = change;
    const words = { create: 'is absent', update: 'is not as declared', remove: 'is not declared' };
    log.info(`${kind} ${words[action]}`, { name, action: this.mode === 'apply' ? action : 'none', ...told(fields) });
    return this.mode === 'apply' ? write() : undefined;
  }
}

const told = (fields: readonly Difference[]) =>
  fields.length === 0
    ? {}
    : { fields: fields.map(({ field, before, after }) => `${field}: ${json(before)} -> ${json(after)}`) };

const json = (value: unknown): string => JSON.stringify(value) ?? 'null';
