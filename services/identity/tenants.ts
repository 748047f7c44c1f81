import { Problem } from '@somagent/governance';
import type { Transaction } from 'kysely';
import type { Database, Standing, Tables } from './database.ts';
import type { Change, Ledger, Origin } from './ledger.ts';
import { problems } from './problems.ts';

/** A tenant as clients see it. */
export interface TenantView {
  readonly tenant: string;
  readonly displayName: string;
  readonly standing: Standing;
  readonly halted: boolean;
  readonly training: 'locked' | 'unlocked';
  readonly createdAt: string;
}

const columns = ['tenant', 'display_name', 'standing', 'halted', 'training', 'created_at'] as const;

interface TenantRow {
  readonly tenant: string;
  readonly display_name: string;
  readonly standing: Standing;
  readonly halted: boolean;
  readonly training: 'locked' | 'unlocked';
  readonly created_at: Date;
}

/** Tenants: created once, changed, suspended and restored, never deleted: their records outlive their work. */
export class Tenants {
  readonly #ledger: Ledger;
  readonly #db: Database;

  constructor(ledger: Ledger, db: Database) {
    this.#ledger = ledger;
    this.#db = db;
  }

  /** Every tenant, by name: for operators. */
  async list(): Promise<TenantView[]> {
    const rows = await this.#db.platform.selectFrom('tenant').select(columns).orderBy('tenant').execute();
    return rows.map(viewOf);
  }

  /** @throws Problem tenant-unknown. */
  async get(tenant: string): Promise<TenantView> {
    const rows = await this.#db.of(tenant).selectFrom('tenant').select(columns).execute();
    const [row] = rows;
    if (row === undefined) throw unknownTenant(tenant);
    return viewOf(row);
  }

  /** Creates the tenant, or changes its displayed name. Repeated, it changes nothing. */
  async put(origin: Origin, tenant: string, displayName: string): Promise<TenantView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const created = await change.rows
        .insertInto('tenant')
        .values({ tenant, display_name: displayName })
        .onConflict((conflict) => conflict.doNothing())
        .returning(columns)
        .executeTakeFirst();
      if (created !== undefined) {
        change.record('audit.identity', 'tenant.created', { name: tenant, displayName });
        return announce(change, created);
      }
      const row = await lockTenant(change.rows, tenant);
      if (row.display_name === displayName) return viewOf(row);
      await change.rows.updateTable('tenant').set({ display_name: displayName }).execute();
      change.record('audit.identity', 'tenant.updated', { name: tenant, changed: ['displayName'] });
      return announce(change, { ...row, display_name: displayName });
    });
  }

  /** Suspends the tenant: no credential of it is accepted any more. Repeated, it changes nothing. */
  suspend(origin: Origin, tenant: string, reason: string): Promise<TenantView> {
    return this.#stand(origin, tenant, reason, 'suspended');
  }

  /** Undoes a suspension. Repeated, it changes nothing. */
  restore(origin: Origin, tenant: string, reason: string): Promise<TenantView> {
    return this.#stand(origin, tenant, reason, 'active');
  }

  #stand(origin: Origin, tenant: string, reason: string, standing: Standing): Promise<TenantView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const row = await lockTenant(change.rows, tenant);
      if (row.standing === standing) return viewOf(row);
      await change.rows.updateTable('tenant').set({ standing }).execute();
      const type = standing === 'suspended' ? 'tenant.suspended' : 'tenant.restored';
      change.record('audit.control', type, { tenant, reason });
      change.control();
      return announce(change, { ...row, standing });
    });
  }
}

/** The tenant's row until the end of the transaction. @throws Problem tenant-unknown. */
export async function lockTenant(rows: Transaction<Tables>, tenant: string): Promise<TenantRow> {
  const row = await rows
    .selectFrom('tenant')
    .select(columns)
    .where('tenant', '=', tenant)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) throw unknownTenant(tenant);
  return row;
}

function announce(change: Change, row: TenantRow): TenantView {
  change.record('identity.changes', 'tenant.put', {
    name: row.tenant,
    displayName: row.display_name,
    suspended: row.standing === 'suspended',
  });
  return viewOf(row);
}

const unknownTenant = (tenant: string) =>
  new Problem(problems.tenantUnknown, `tenant ${tenant} does not exist: an operator creates it`);

const viewOf = (row: TenantRow): TenantView => ({
  tenant: row.tenant,
  displayName: row.display_name,
  standing: row.standing,
  halted: row.halted,
  training: row.training,
  createdAt: row.created_at.toISOString(),
});
