import type { Actor } from '@somagent/events';
import type { QuotaTables } from '@somagent/governance';
import { appendEvents, type OutboxEvent, type TenantDatabase } from '@somagent/kit';
import type { Generated, Transaction } from 'kysely';
import type { GateVerdict } from './gate.ts';
import type { SignedLineage } from './lineage.ts';
import type { Recipe } from './recipe.ts';

/** Who asked for a run, as the policy is asked about it again and again. */
export interface Requester {
  readonly id: string;
  readonly kind: Exclude<Actor['kind'], 'system'>;
  readonly client: string | null;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
  readonly scopes: readonly string[] | null;
  /** The API key that was shown, when it was one. */
  readonly keyId: string | null;
}

/**
 * How far a run is: `passed` has a model that may be promoted, `refused` one that the gate did not let pass, `stopped`
 * was ended by the policy.
 */
export type RunState = 'queued' | 'running' | 'passed' | 'refused' | 'stopped' | 'failed';

/** One row per session whose turns may be trained on. */
export interface ApprovalTable {
  tenant: string;
  session_id: string;
  approved_by: string;
  approved_at: Generated<Date>;
  reason: string;
  withdrawn_by: string | null;
  withdrawn_at: Date | null;
}

/** One row per run. */
export interface RunTable {
  tenant: string;
  id: string;
  state: Generated<RunState>;
  requester: Requester;
  request_id: string;
  recipe: Recipe;
  /** Times that it was begun. */
  attempts: Generated<number>;
  /** Why it ended as it did, in words. */
  reasons: Generated<string[]>;
  gate: GateVerdict | null;
  lineage: SignedLineage | null;
  created_at: Generated<Date>;
  ended_at: Date | null;
}

/** One row per promotion; the newest of a tenant names the model that serves it. */
export interface PromotionTable {
  tenant: string;
  number: number;
  run_id: string;
  model_hash: string;
  promoted_by: string;
  reason: string;
  promoted_at: Generated<Date>;
}

/** The tables of the database `training`. */
export interface Tables extends QuotaTables {
  approval: ApprovalTable;
  run: RunTable;
  promotion: PromotionTable;
}

/** The database `training`; each connection has a tenant, and row-level security keeps it to that one. */
export type Database = TenantDatabase<Tables>;

/** Rows and the events that tell of them, in one transaction: no change is without its record. */
export function change<Result>(
  db: Database,
  tenant: string,
  work: (rows: Transaction<Tables>, record: (event: OutboxEvent) => void) => Promise<Result>,
): Promise<Result> {
  return db
    .of(tenant)
    .transaction()
    .execute(async (rows) => {
      const events: OutboxEvent[] = [];
      const result = await work(rows, (event) => events.push(event));
      await appendEvents(rows, events);
      return result;
    });
}
