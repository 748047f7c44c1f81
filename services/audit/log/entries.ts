import type { TenantDatabase } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import type { Database } from './database.ts';

/** Whose entries a reader may see: those of one tenant, or all. */
export type Scope = { readonly tenant: string } | 'platform';

/** An entry of the log. */
export interface Entry {
  readonly index: number;
  /** The bytes that the tree hashes, as text. */
  readonly leaf: string;
  readonly hash: Buffer;
}

/** Which entries to list. */
export interface EntryQuery {
  /** First index. */
  readonly from: number;
  /** The most entries. */
  readonly limit: number;
  readonly requestId?: string | undefined;
  readonly topic?: string | undefined;
}

interface Row {
  readonly index: string;
  readonly leaf: string;
  readonly hash: Buffer;
}

/** Reads entries. Row-level security keeps a tenant's reader to its own, besides what the statements say. */
export class EntryReader {
  readonly #database: TenantDatabase<Database>;

  constructor(database: TenantDatabase<Database>) {
    this.#database = database;
  }

  /** Entries in order. */
  async list(scope: Scope, { from, limit, requestId, topic }: EntryQuery): Promise<Entry[]> {
    const { rows } = await sql<Row>`
      select index, leaf, hash from audit_leaf
      where index >= ${from} and ${ofScope(scope)}
        and ${requestId === undefined ? sql`true` : sql`request_id = ${requestId}`}
        and ${topic === undefined ? sql`true` : sql`topic = ${topic}`}
      order by index limit ${limit}`.execute(this.#rows(scope));
    return rows.map(entryOf);
  }

  /** The entry at an index; undefined when there is none in the scope. */
  async at(scope: Scope, index: number): Promise<Entry | undefined> {
    const [entry] = await this.list(scope, { from: index, limit: 1 });
    return entry?.index === index ? entry : undefined;
  }

  /** Hashes of all leaves of a range, whosever they are: they show nothing of an entry. */
  async hashes(from: number, to: number): Promise<Buffer[]> {
    const { rows } = await sql<{ hash: Buffer }>`
      select hash from audit_leaf where index >= ${from} and index < ${to} order by index`.execute(
      this.#database.platform,
    );
    return rows.map(({ hash }) => hash);
  }

  #rows(scope: Scope): Kysely<Database> {
    return scope === 'platform' ? this.#database.platform : this.#database.of(scope.tenant);
  }
}

const ofScope = (scope: Scope) => (scope === 'platform' ? sql`true` : sql`tenant = ${scope.tenant}`);

const entryOf = ({ index, leaf, hash }: Row): Entry => ({ index: Number(index), leaf, hash });
