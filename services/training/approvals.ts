import { event } from '@somagent/events';
import { Problem } from '@somagent/governance';
import { sql } from 'kysely';
import { change, type Database, type Requester } from './database.ts';
import { actorOf } from './runs.ts';
import type { Sessions } from './sessions.ts';

/** A session whose turns may be trained on, as clients see it. */
export interface ApprovalView {
  readonly sessionId: string;
  readonly approvedBy: string;
  readonly approvedAt: string;
  readonly reason: string;
}

/** Which sessions may be trained on: none, unless a person has said so. */
export class Approvals {
  readonly #db: Database;
  readonly #sessions: Sessions;

  constructor(db: Database, sessions: Sessions) {
    this.#db = db;
    this.#sessions = sessions;
  }

  /** Approved ones, by id. */
  async list(tenant: string, limit: number): Promise<ApprovalView[]> {
    const rows = await this.#db
      .of(tenant)
      .selectFrom('approval')
      .selectAll()
      .where('withdrawn_at', 'is', null)
      .orderBy('session_id')
      .limit(limit)
      .execute();
    return rows.map((row) => ({
      sessionId: row.session_id,
      approvedBy: row.approved_by,
      approvedAt: row.approved_at.toISOString(),
      reason: row.reason,
    }));
  }

  /**
   * Approves sessions of the tenant; one that is approved keeps who did it first.
   * @returns those that were not approved before
   * @throws Problem not-found naming the sessions that the tenant does not have.
   */
  async approve(tenant: string, by: Requester, requestId: string, ids: readonly string[], reason: string) {
    await this.#requireKnown(tenant, ids);
    return change(this.#db, tenant, async (rows, record) => {
      const { rows: approved } = await sql<{ session_id: string }>`
        insert into approval (tenant, session_id, approved_by, reason)
        select ${tenant}, id, ${by.id}, ${reason} from unnest(${[...ids]}::uuid[]) as asked (id)
        on conflict (tenant, session_id) do update
          set approved_by = excluded.approved_by, approved_at = clock_timestamp(), reason = excluded.reason,
            withdrawn_by = null, withdrawn_at = null
          where approval.withdrawn_at is not null
        returning session_id`.execute(rows);
      const sessionIds = approved.map(({ session_id }) => session_id).sort();
      const content = { tenant, actor: actorOf(by), requestId, data: { sessionIds, reason } };
      if (sessionIds.length > 0) record(event('audit.control', 'training.data-approved', content));
      return sessionIds;
    });
  }

  /** Takes approvals back; runs that begin from now on leave these sessions out. @returns those that were approved */
  withdraw(tenant: string, by: Requester, requestId: string, ids: readonly string[], reason: string) {
    return change(this.#db, tenant, async (rows, record) => {
      const withdrawn = await rows
        .updateTable('approval')
        .set({ withdrawn_by: by.id, withdrawn_at: sql<Date>`clock_timestamp()` })
        .where('session_id', 'in', [...ids])
        .where('withdrawn_at', 'is', null)
        .returning('session_id')
        .execute();
      const sessionIds = withdrawn.map(({ session_id }) => session_id).sort();
      const content = { tenant, actor: actorOf(by), requestId, data: { sessionIds, reason } };
      if (sessionIds.length > 0) record(event('audit.control', 'training.data-withdrawn', content));
      return sessionIds;
    });
  }

  async #requireKnown(tenant: string, ids: readonly string[]): Promise<void> {
    const rows = await this.#sessions
      .of(tenant)
      .selectFrom('session')
      .select('id')
      .where('tenant', '=', tenant)
      .where('id', 'in', [...ids])
      .execute();
    const known = new Set(rows.map(({ id }) => id));
    const unknown = ids.filter((id) => !known.has(id));
    if (unknown.length > 0) throw new Problem('not-found', `sessions that do not exist: ${unknown.join(', ')}`);
  }
}
