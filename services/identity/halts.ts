import { sql } from 'kysely';
import type { Ledger, Origin } from './ledger.ts';
import { lockTenant } from './tenants.ts';

/**
 * The kill switch: stops all agent work of a tenant, or of everything, and undoes it the same way. It keeps state: what
 * ran waits. Pulled twice it is pulled once.
 */
export class Halts {
  readonly #ledger: Ledger;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** @param tenant null: everything. @returns whether anything changed. @throws Problem tenant-unknown. */
  halt(origin: Origin, tenant: string | null, reason: string): Promise<boolean> {
    return this.#set(origin, tenant, reason, true);
  }

  /** @param tenant null: everything. A tenant's own halt outlives it. @returns whether anything changed. */
  resume(origin: Origin, tenant: string | null, reason: string): Promise<boolean> {
    return this.#set(origin, tenant, reason, false);
  }

  #set(origin: Origin, tenant: string | null, reason: string, halted: boolean): Promise<boolean> {
    return this.#ledger.change(tenant, origin, async (change) => {
      if (tenant !== null) await lockTenant(change.rows, tenant);
      // Row-level security leaves of the table `tenant` only the row of this tenant.
      const table = sql.table(tenant === null ? 'control' : 'tenant');
      const changed = await sql`update ${table} set halted = ${halted} where halted <> ${halted}`.execute(change.rows);
      if (changed.numAffectedRows === 0n) return false;
      const scope = tenant === null ? 'all' : 'tenant';
      change.record('audit.control', halted ? 'control.halted' : 'control.resumed', { scope, reason });
      change.control();
      return true;
    });
  }
}
