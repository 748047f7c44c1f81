import { platformTenant } from '@somagent/governance';
import { sql } from 'kysely';
import type { Database } from './database.ts';
import type { Change, Ledger, Origin } from './ledger.ts';

/** What can be revoked by name. */
export type RevocationKind = 'session' | 'token' | 'key';

/**
 * How long a revocation stands in the feed, seconds. A session or token: the longest life of an access token with room
 * to spare, since Keycloak itself gives no new one. A key: longer than anybody remembers that it was good.
 */
export const revocationSeconds: Readonly<Record<RevocationKind, number>> = { session: 7200, token: 7200, key: 600 };

/** Credentials that must not be accepted any more although they would verify. */
export class Revocations {
  readonly #ledger: Ledger;
  readonly #db: Database;

  constructor(ledger: Ledger, db: Database) {
    this.#ledger = ledger;
    this.#db = db;
  }

  /**
   * Revokes a login session or a token. Repeated, it changes nothing.
   * @param tenant null: of somebody of the platform
   * @returns whether anything changed.
   */
  revoke(
    origin: Origin,
    tenant: string | null,
    kind: 'session' | 'token',
    id: string,
    reason: string,
  ): Promise<boolean> {
    return this.#ledger.change(tenant, origin, (change) =>
      addRevocation(change, { tenant: tenant ?? platformTenant, kind, id, reason }),
    );
  }

  /** Forgets revocations whose credentials have expired by themselves. @returns how many. */
  async prune(): Promise<number> {
    const { numDeletedRows } = await this.#db.platform
      .deleteFrom('revocation')
      .where('expires_at', '<=', sql<Date>`clock_timestamp()`)
      .executeTakeFirst();
    return Number(numDeletedRows);
  }
}

/** What is revoked and why. */
export interface Revocation {
  readonly tenant: string;
  readonly kind: RevocationKind;
  readonly id: string;
  readonly reason: string;
}

/** Revokes within a change. @returns whether it was not revoked already. */
export async function addRevocation(change: Change, { tenant, kind, id, reason }: Revocation): Promise<boolean> {
  const added = await change.rows
    .insertInto('revocation')
    .values({
      tenant,
      kind,
      id,
      expires_at: sql<Date>`clock_timestamp() + make_interval(secs => ${revocationSeconds[kind]})`,
    })
    .onConflict((conflict) => conflict.columns(['kind', 'id']).doNothing())
    .returning('id')
    .executeTakeFirst();
  if (added === undefined) return false;
  change.record('audit.control', 'credential.revoked', { kind, id, reason });
  change.control();
  return true;
}
