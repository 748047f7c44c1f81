import { Problem } from '@somagent/governance';
import { sql, type Transaction } from 'kysely';
import type { AccountKind, Database, Standing, Tables } from './database.ts';
import { tenantRoles, type WishedAccount } from './keycloak.ts';
import type { Change, Ledger, Origin } from './ledger.ts';
import { problems } from './problems.ts';
import { addRevocation } from './revocations.ts';
import { lockTenant } from './tenants.ts';

/** A person or service account as clients see it. */
export interface AccountView {
  readonly id: string;
  readonly kind: AccountKind;
  readonly username: string;
  readonly email: string | null;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  readonly standing: Standing;
  readonly createdAt: string;
}

/** What an account shall be. */
export interface AccountWish {
  readonly id: string;
  readonly kind: AccountKind;
  readonly username: string;
  readonly email: string | null;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
}

/** Space of the advisory locks under which accounts are settled. */
const settling = 0x73746e64;

const columns = ['id', 'kind', 'username', 'email', 'roles', 'teams', 'standing', 'created_at'] as const;

interface AccountRow {
  readonly id: string;
  readonly kind: AccountKind;
  readonly username: string;
  readonly email: string | null;
  readonly roles: string[];
  readonly teams: string[];
  readonly standing: Standing;
  readonly created_at: Date;
}

/** Accounts and teams in the database: what the platform holds to be true; Keycloak is brought to it. */
export class Accounts {
  readonly #ledger: Ledger;
  readonly #db: Database;

  constructor(ledger: Ledger, db: Database) {
    this.#ledger = ledger;
    this.#db = db;
  }

  /** Accounts of a kind, by name, after a name. */
  async list(tenant: string, kind: AccountKind, limit: number, after = ''): Promise<AccountView[]> {
    const rows = await this.#db
      .of(tenant)
      .selectFrom('account')
      .select(columns)
      .where('kind', '=', kind)
      .where('username', '>', after)
      .orderBy('username')
      .limit(limit)
      .execute();
    return rows.map(viewOf);
  }

  /** An account by its name. */
  async find(tenant: string, kind: AccountKind, username: string): Promise<AccountView | undefined> {
    const query = this.#db.of(tenant).selectFrom('account').select(columns);
    const row = await query.where('kind', '=', kind).where('username', '=', username).executeTakeFirst();
    return row && viewOf(row);
  }

  /** An account by its id. @throws Problem not-found. */
  async get(tenant: string, kind: AccountKind, id: string): Promise<AccountView> {
    const query = this.#db.of(tenant).selectFrom('account').select(columns);
    const row = await query.where('kind', '=', kind).where('id', '=', id).executeTakeFirst();
    if (row === undefined) throw unknownAccount(id);
    return viewOf(row);
  }

  /** The tenant that the account belongs to, whichever it is. */
  async tenantOf(id: string): Promise<string | undefined> {
    const row = await this.#db.platform.selectFrom('account').select('tenant').where('id', '=', id).executeTakeFirst();
    return row?.tenant;
  }

  /** Refuses roles and teams that the account can't have. @throws Problem role-unknown, team-unknown, tenant-unknown. */
  async check(tenant: string, wish: Pick<AccountWish, 'roles' | 'teams'>): Promise<void> {
    await this.#db
      .of(tenant)
      .transaction()
      .execute((rows) => checkWish(rows, tenant, wish));
  }

  /** Stores the account. Repeated, it changes nothing. @throws Problem as {@link check}. */
  put(origin: Origin, tenant: string, wish: AccountWish): Promise<AccountView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      await checkWish(change.rows, tenant, wish);
      const { id, kind, username, email } = wish;
      const sets = { email, roles: [...wish.roles].sort(), teams: [...wish.teams].sort() };
      const created = await change.rows
        .insertInto('account')
        .values({ tenant, id, kind, username, ...sets })
        .onConflict((conflict) => conflict.doNothing())
        .returning(columns)
        .executeTakeFirst();
      if (created !== undefined) {
        recordCreated(change, created);
        return announce(change, created);
      }
      const row = await lockAccount(change, id);
      const changed = (['email', 'roles', 'teams'] as const).filter(
        (field) => JSON.stringify(row[field]) !== JSON.stringify(sets[field]),
      );
      if (changed.length === 0) return viewOf(row);
      await change.rows.updateTable('account').set(sets).where('id', '=', id).execute();
      const { roles, teams } = sets;
      change.record('audit.identity', 'user.updated', { userId: id, username: row.username, changed, roles, teams });
      return announce(change, { ...row, ...sets });
    });
  }

  /** Removes an account with its keys. Repeated, it changes nothing. @returns what it was */
  remove(origin: Origin, tenant: string, kind: AccountKind, id: string): Promise<AccountView | undefined> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const query = change.rows.selectFrom('account').select(columns).where('id', '=', id).where('kind', '=', kind);
      const row = await query.forUpdate().executeTakeFirst();
      if (row === undefined) return undefined;
      const keys = await change.rows
        .deleteFrom('api_key')
        .where('owner', '=', id)
        .returning(['id', 'expires_at', 'revoked_at'])
        .execute();
      for (const key of keys.filter(({ revoked_at }) => revoked_at === null)) {
        const reason = 'its owner was removed';
        change.record('audit.identity', 'api-key.revoked', { keyId: key.id, owner: id, reason });
        await addRevocation(change, { tenant, kind: 'key', id: key.id, reason });
      }
      await change.rows.deleteFrom('account').where('id', '=', id).execute();
      if (kind === 'user') change.record('audit.identity', 'user.removed', { userId: id, username: row.username });
      else change.record('audit.identity', 'service-account.removed', { accountId: id, clientId: row.username });
      change.record('identity.changes', 'user.removed', { userId: id });
      if (row.standing === 'suspended') change.control();
      return viewOf(row);
    });
  }

  /** Suspends an account: its tokens and keys are not accepted any more. Repeated, it changes nothing. */
  suspend(origin: Origin, tenant: string, id: string, reason: string): Promise<AccountView> {
    return this.#stand(origin, tenant, id, reason, 'suspended');
  }

  /** Undoes a suspension. Repeated, it changes nothing. */
  restore(origin: Origin, tenant: string, id: string, reason: string): Promise<AccountView> {
    return this.#stand(origin, tenant, id, reason, 'active');
  }

  /** Records that a service account gets a new secret. @throws Problem not-found. */
  recordRotation(origin: Origin, tenant: string, id: string): Promise<AccountView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const row = await lockAccount(change, id);
      if (row.kind !== 'service-account') throw unknownAccount(id);
      const { username, roles, teams } = row;
      const data = { userId: id, username, changed: ['secret'], roles, teams };
      change.record('audit.identity', 'user.updated', data);
      return viewOf(row);
    });
  }

  /** Teams of a tenant. */
  async teams(tenant: string): Promise<string[]> {
    const rows = await this.#db.of(tenant).selectFrom('team').select('name').orderBy('name').execute();
    return rows.map(({ name }) => name);
  }

  /** Adds a team. Repeated, it changes nothing. */
  putTeam(origin: Origin, tenant: string, name: string): Promise<void> {
    return this.#ledger.change(tenant, origin, async (change) => {
      await lockTenant(change.rows, tenant);
      const added = await change.rows
        .insertInto('team')
        .values({ tenant, name })
        .onConflict((conflict) => conflict.doNothing())
        .returning('name')
        .executeTakeFirst();
      if (added === undefined) return;
      change.record('audit.identity', 'tenant.updated', { name: tenant, changed: [`team ${name} added`] });
      change.record('identity.changes', 'team.put', { name });
    });
  }

  /** Removes a team that nobody is in. Repeated, it changes nothing. @throws Problem team-in-use. */
  removeTeam(origin: Origin, tenant: string, name: string): Promise<void> {
    return this.#ledger.change(tenant, origin, async (change) => {
      // Whoever puts somebody into a team holds the same lock.
      await lockTenant(change.rows, tenant);
      const member = await change.rows
        .selectFrom('account')
        .select('username')
        .where((eb) => eb(eb.val(name), '=', eb.fn.any('teams')))
        .executeTakeFirst();
      if (member !== undefined) {
        throw new Problem(problems.teamInUse, `${member.username} is in team ${name}: take everybody out first`);
      }
      const { numDeletedRows } = await change.rows.deleteFrom('team').where('name', '=', name).executeTakeFirst();
      if (numDeletedRows === 0n) return;
      change.record('audit.identity', 'tenant.updated', { name: tenant, changed: [`team ${name} removed`] });
      change.record('identity.changes', 'team.removed', { name });
    });
  }

  /** What Keycloak must hold: of every tenant, or of one, or of one account. */
  async wishes(filter: { readonly tenant?: string; readonly id?: string } = {}): Promise<WishedAccount[]> {
    const { tenant, id } = filter;
    const rows = await this.#db.platform
      .selectFrom('account')
      .innerJoin('tenant', 'tenant.tenant', 'account.tenant')
      .select(['account.tenant', 'id', 'kind', 'username', 'roles', 'teams', 'account.standing'])
      .select('tenant.standing as tenant_standing')
      .$if(tenant !== undefined, (query) => query.where('account.tenant', '=', tenant ?? ''))
      .$if(id !== undefined, (query) => query.where('id', '=', id ?? ''))
      .orderBy('account.tenant')
      .orderBy('username')
      .execute();
    return rows.map(({ standing, tenant_standing, ...account }) => ({
      ...account,
      enabled: standing === 'active' && tenant_standing === 'active',
    }));
  }

  /**
   * Brings an account elsewhere to what the database says now. One replica at a time: side by side, an earlier standing
   * could be written over a later one.
   * @returns what `bring` answers; undefined when the account is gone
   */
  settle<Result>(id: string, bring: (wish: WishedAccount) => Promise<Result>): Promise<Result | undefined> {
    return this.#db.untenanted.transaction().execute(async (rows) => {
      await sql`select pg_advisory_xact_lock(hashtextextended(${id}, ${settling}))`.execute(rows);
      const [wish] = await this.wishes({ id });
      return wish && bring(wish);
    });
  }

  #stand(origin: Origin, tenant: string, id: string, reason: string, standing: Standing): Promise<AccountView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const row = await lockAccount(change, id);
      if (row.standing === standing) return viewOf(row);
      await change.rows.updateTable('account').set({ standing }).where('id', '=', id).execute();
      const type = standing === 'suspended' ? 'user.suspended' : 'user.restored';
      change.record('audit.control', type, { userId: id, reason });
      change.control();
      return announce(change, { ...row, standing });
    });
  }
}

async function checkWish(
  rows: Transaction<Tables>,
  tenant: string,
  { roles, teams }: Pick<AccountWish, 'roles' | 'teams'>,
): Promise<void> {
  await lockTenant(rows, tenant);
  const strange = roles.filter((role) => !(tenantRoles as readonly string[]).includes(role));
  if (strange.length > 0) {
    throw new Problem(problems.roleUnknown, `${strange.join(', ')}: give one of ${tenantRoles.join(', ')}`);
  }
  const known = new Set((await rows.selectFrom('team').select('name').execute()).map(({ name }) => name));
  const absent = teams.filter((team) => !known.has(team));
  if (absent.length > 0) {
    throw new Problem(problems.teamUnknown, `${absent.join(', ')}: create the team first; there are: ${[...known]}`);
  }
}

/** @throws Problem not-found; name-taken when another account has the name. */
async function lockAccount(change: Change, id: string): Promise<AccountRow> {
  const query = change.rows.selectFrom('account').select(columns).where('id', '=', id);
  const row = await query.forUpdate().executeTakeFirst();
  if (row === undefined) throw unknownAccount(id);
  return row;
}

function recordCreated(change: Change, { id, kind, username, roles, teams }: AccountRow): void {
  if (kind === 'user') change.record('audit.identity', 'user.created', { userId: id, username, roles, teams });
  else change.record('audit.identity', 'service-account.created', { accountId: id, clientId: username, roles });
}

function announce(change: Change, row: AccountRow): AccountView {
  const { id: userId, kind, username, roles, teams, standing } = row;
  const suspended = standing === 'suspended';
  change.record('identity.changes', 'user.put', { userId, kind, username, roles, teams, suspended });
  return viewOf(row);
}

const unknownAccount = (id: string) => new Problem('not-found', `account ${id} does not exist`);

const viewOf = (row: AccountRow): AccountView => ({
  id: row.id,
  kind: row.kind,
  username: row.username,
  email: row.email,
  roles: row.roles,
  teams: row.teams,
  standing: row.standing,
  createdAt: row.created_at.toISOString(),
});
