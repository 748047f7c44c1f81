import { timingSafeEqual } from 'node:crypto';
import { Problem } from '@somagent/governance';
import { sql } from 'kysely';
import type { Database } from './database.ts';
import { hashSecret, keyText, newKeyId, newSecret, parseKey } from './key-text.ts';
import type { Ledger, Origin } from './ledger.ts';
import { problems } from './problems.ts';
import { addRevocation } from './revocations.ts';

/** An API key as clients see it: never its secret. */
export interface ApiKeyView {
  readonly id: string;
  readonly owner: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly revokedAt: string | null;
}

/** What a new key is made of. */
export interface NewKey {
  readonly owner: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly days: number;
}

/** Whom a good key stands for. */
export interface KeyHolder {
  readonly keyId: string;
  readonly tenant: string;
  /** The account that the key belongs to: its `sub`. */
  readonly subject: string;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  /** The only capabilities that the key has, of those that the roles give. */
  readonly scopes: readonly string[];
  readonly expiresAt: string;
}

/** Longest life of a key, days. */
export const longestLife = 365;

const columns = ['id', 'owner', 'name', 'scopes', 'created_at', 'expires_at', 'revoked_at'] as const;

/** API keys: a secret that is shown once, limited in what it may and in time. */
export class ApiKeys {
  readonly #ledger: Ledger;
  readonly #db: Database;

  constructor(ledger: Ledger, db: Database) {
    this.#ledger = ledger;
    this.#db = db;
  }

  /** Keys of a tenant, newest first; with an owner, of that account only. */
  async list(tenant: string, owner?: string): Promise<ApiKeyView[]> {
    const rows = await this.#db
      .of(tenant)
      .selectFrom('api_key')
      .select(columns)
      .$if(owner !== undefined, (query) => query.where('owner', '=', owner ?? ''))
      .orderBy('created_at', 'desc')
      .limit(1000)
      .execute();
    return rows.map(viewOf);
  }

  /**
   * Makes a key.
   * @param idempotencyKey the same one makes no second key; then there is no secret to show any more
   * @throws Problem not-found (no such owner), key-exists.
   */
  async create(
    origin: Origin,
    tenant: string,
    key: NewKey,
    idempotencyKey: string | undefined,
  ): Promise<{ readonly key: ApiKeyView; readonly secret: string }> {
    const id = newKeyId(...(idempotencyKey === undefined ? [] : [tenant, origin.actor.id, idempotencyKey]));
    const secret = newSecret();
    return this.#ledger.change(tenant, origin, async (change) => {
      const owner = await change.rows
        .selectFrom('account')
        .select('id')
        .where('id', '=', key.owner)
        .forShare()
        .execute();
      if (owner.length === 0) throw new Problem('not-found', `account ${key.owner} does not exist`);
      const row = await change.rows
        .insertInto('api_key')
        .values({
          tenant,
          id,
          owner: key.owner,
          name: key.name,
          scopes: [...key.scopes],
          secret_hash: hashSecret(secret),
          expires_at: sql<Date>`clock_timestamp() + make_interval(days => ${key.days})`,
        })
        .onConflict((conflict) => conflict.column('id').doNothing())
        .returning(columns)
        .executeTakeFirst();
      if (row === undefined) {
        throw new Problem(problems.keyExists, `key ${id} was made by it; its secret was shown then and never again`);
      }
      const view = viewOf(row);
      const { owner: keyOwner, scopes, expiresAt } = view;
      change.record('audit.identity', 'api-key.created', {
        keyId: id,
        owner: keyOwner,
        scopes: [...scopes],
        expiresAt,
      });
      return { key: view, secret: keyText({ id, secret }) };
    });
  }

  /** Revokes a key, everywhere at once. Repeated, it changes nothing. @throws Problem not-found. */
  async revoke(origin: Origin, tenant: string, id: string, reason: string): Promise<ApiKeyView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const row = await change.rows
        .selectFrom('api_key')
        .select(columns)
        .where('id', '=', id)
        .forUpdate()
        .executeTakeFirst();
      if (row === undefined) throw new Problem('not-found', `key ${id} does not exist`);
      if (row.revoked_at !== null) return viewOf(row);
      const revoked = await change.rows
        .updateTable('api_key')
        .set({ revoked_at: sql<Date>`clock_timestamp()` })
        .where('id', '=', id)
        .returning(columns)
        .executeTakeFirstOrThrow();
      change.record('audit.identity', 'api-key.revoked', { keyId: id, owner: row.owner, reason });
      await addRevocation(change, { tenant, kind: 'key', id, reason });
      return viewOf(revoked);
    });
  }

  /** Whom a key stands for; null when it is none that is good now, whatever the reason. */
  async verify(text: string): Promise<KeyHolder | null> {
    const parts = parseKey(text);
    if (parts === undefined) return null;
    const row = await this.#db.platform
      .selectFrom('api_key')
      .innerJoin('account', (join) =>
        join.onRef('account.tenant', '=', 'api_key.tenant').onRef('account.id', '=', 'api_key.owner'),
      )
      .innerJoin('tenant', 'tenant.tenant', 'api_key.tenant')
      .select([
        'api_key.tenant',
        'api_key.owner',
        'api_key.scopes',
        'api_key.secret_hash',
        'api_key.expires_at',
        'account.roles',
        'account.teams',
      ])
      .where('api_key.id', '=', parts.id)
      .where('api_key.revoked_at', 'is', null)
      .where('api_key.expires_at', '>', sql<Date>`clock_timestamp()`)
      .where('account.standing', '=', 'active')
      .where('tenant.standing', '=', 'active')
      .executeTakeFirst();
    if (row === undefined || !timingSafeEqual(row.secret_hash, hashSecret(parts.secret))) return null;
    const { tenant, owner: subject, roles, teams, scopes, expires_at } = row;
    return { keyId: parts.id, tenant, subject, roles, teams, scopes, expiresAt: expires_at.toISOString() };
  }
}

interface ApiKeyRow {
  readonly id: string;
  readonly owner: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly created_at: Date;
  readonly expires_at: Date;
  readonly revoked_at: Date | null;
}

const viewOf = (row: ApiKeyRow): ApiKeyView => ({
  id: row.id,
  owner: row.owner,
  name: row.name,
  scopes: row.scopes,
  createdAt: row.created_at.toISOString(),
  expiresAt: row.expires_at.toISOString(),
  revokedAt: row.revoked_at?.toISOString() ?? null,
});
