import { Kysely, PostgresDialect, type PostgresPool, type RawBuilder, sql } from 'kysely';
import type pg from 'pg';

/** Names of tenants, as tokens carry them. */
export const tenantPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** The Postgres setting that holds the tenant of a connection; row-level security reads it. */
export const tenantSetting = 'soma.tenant';

/** Value of the setting that stands for every tenant: no name of a tenant can be it. Only the owner's policy knows it. */
const everyTenant = '*';

/**
 * A database in which row-level security keeps tenants apart. A connection has the tenant of the statement that it was
 * checked out for; whoever names none sees no row of a tenant, whatever the WHERE says.
 * It owns the pool: a connection checked out past this class would have the tenant of its last use.
 * Source: https://www.postgresql.org/docs/current/ddl-rowsecurity.html
 */
export class TenantDatabase<Tables> {
  readonly #pool: pg.Pool;
  readonly #scopes = new Map<string, Kysely<Tables>>();
  /** The tenant that each open connection has, so that the next statement of the same one needs no further round trip. */
  readonly #tenants = new WeakMap<pg.PoolClient, string>();

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  /**
   * The rows of one tenant, for reading and writing.
   * @throws RangeError when the name can't be a tenant's.
   */
  of(tenant: string): Kysely<Tables> {
    if (!tenantPattern.test(tenant)) {
      throw new RangeError(`tenant ${JSON.stringify(tenant)} is not a name of a tenant: use ${tenantPattern.source}`);
    }
    return this.#scope(tenant);
  }

  /** What belongs to no tenant. Rows of tenants are invisible here. */
  get untenanted(): Kysely<Tables> {
    return this.#scope('');
  }

  /**
   * The rows of every tenant, for work of the platform itself (relays, reconciliation). Only the owner of the tables may;
   * never on the way of a request.
   */
  get platform(): Kysely<Tables> {
    return this.#scope(everyTenant);
  }

  /** Closes the pool. */
  async destroy(): Promise<void> {
    await this.#pool.end();
  }

  #scope(tenant: string): Kysely<Tables> {
    const known = this.#scopes.get(tenant);
    if (known !== undefined) return known;
    const { options } = this.#pool;
    const pool: PostgresPool = { options, connect: () => this.#checkOut(tenant), end: async () => undefined };
    const scope = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
    // A scope is only a cheap handle on the pool: the oldest is forgotten, not closed.
    const [oldest] = this.#scopes.keys();
    if (this.#scopes.size >= 1000 && oldest !== undefined) this.#scopes.delete(oldest);
    this.#scopes.set(tenant, scope);
    return scope;
  }

  async #checkOut(tenant: string): Promise<pg.PoolClient> {
    const client = await this.#pool.connect();
    if (this.#tenants.get(client) === tenant) return client;
    try {
      this.#tenants.delete(client);
      await client.query('select set_config($1, $2, false)', [tenantSetting, tenant]);
      this.#tenants.set(client, tenant);
      return client;
    } catch (error) {
      // Nobody knows which tenant it has now.
      client.release(true);
      throw error;
    }
  }
}

/** Runs work on the rows of one tenant in one transaction. */
export const withTenant = <Tables, Result>(
  database: TenantDatabase<Tables>,
  tenant: string,
  work: (rows: Kysely<Tables>) => Promise<Result>,
): Promise<Result> => database.of(tenant).transaction().execute(work);

const currentTenant = `nullif(current_setting('${tenantSetting}', true), '')`;

/**
 * For a migration, run by the owner of the table: from now on each connection sees and writes rows of its own tenant
 * only, the owner's connections included. The owner alone may also say that it means every tenant.
 * @param column the column with the tenant
 */
export async function isolateTenants<Tables>(db: Kysely<Tables>, table: string, column = 'tenant'): Promise<void> {
  const name = sql.table(table);
  const own = sql`${sql.ref(column)} = ${sql.raw(currentTenant)}`;
  const all = sql.raw(`${currentTenant} = '${everyTenant}'`);
  const statements: RawBuilder<unknown>[] = [
    sql`alter table ${name} enable row level security`,
    sql`alter table ${name} force row level security`,
    sql`create policy tenant_rows on ${name} using (${own}) with check (${own})`,
    sql`create policy platform_rows on ${name} to current_user using (${all}) with check (${all})`,
  ];
  for (const statement of statements) await statement.execute(db);
}

/** A table that has rows of tenants and does not keep them apart. */
export interface IsolationGap {
  /** `<schema>.<table>`. */
  readonly table: string;
  readonly problem: string;
}

/**
 * Lists every table of a database with a column `tenant` that row-level security does not guard: it is off, not forced
 * on the owner, without a policy, or with a policy that does not ask for the tenant of the connection.
 */
export async function isolationGaps<Tables>(db: Kysely<Tables>, column = 'tenant'): Promise<readonly IsolationGap[]> {
  const { rows } = await sql<TenantTable>`
    select format('%I.%I', n.nspname, c.relname) as table, c.relrowsecurity as enabled, c.relforcerowsecurity as forced,
      coalesce((select json_agg(json_build_object('name', p.polname,
          'reads', coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)),
          'writes', coalesce(pg_get_expr(p.polwithcheck, p.polrelid), pg_get_expr(p.polqual, p.polrelid))))
        from pg_policy p where p.polrelid = c.oid and p.polpermissive), '[]') as policies
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = ${column} and not a.attisdropped
    where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    order by 1`.execute(db);
  return rows.flatMap((row) => gapsOf(row).map((problem) => ({ table: row.table, problem })));
}

interface TenantTable {
  readonly table: string;
  readonly enabled: boolean;
  readonly forced: boolean;
  readonly policies: readonly { readonly name: string; readonly reads: string; readonly writes: string }[];
}

function gapsOf({ enabled, forced, policies }: TenantTable): string[] {
  if (!enabled) return ['row level security is off'];
  const open = policies.filter(({ reads, writes }) => ![reads, writes].every((part) => part.includes(tenantSetting)));
  return [
    ...(forced ? [] : ['row level security is not forced on its owner']),
    ...(policies.length === 0 ? ['it has no policy'] : []),
    ...open.map(({ name }) => `policy ${name} does not ask for the tenant of the connection`),
  ];
}

/** @throws Error that names every table of {@link isolationGaps}. */
export async function requireIsolation<Tables>(db: Kysely<Tables>): Promise<void> {
  const gaps = await isolationGaps(db);
  if (gaps.length === 0) return;
  const lines = gaps.map(({ table, problem }) => `  - ${table}: ${problem}`).join('\n');
  throw new Error(
    `tables with rows of tenants are not guarded:\n${lines}\nCall isolateTenants for each in a migration.`,
  );
}
