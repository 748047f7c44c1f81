import type { TenantDatabase } from '@somagent/kit';
import { type EventType, type Turn, workflowIdOf } from '@somagent/orchestrator/contract.ts';
import { type Database, ofTenant } from '@somagent/orchestrator/database.ts';
import { turnColumns } from '@somagent/orchestrator/session-store.ts';
import { sql } from 'kysely';
import type { Cursor } from './identifiers.ts';

/** A session as clients see it. */
export interface SessionView {
  readonly id: string;
  readonly workflowId: string;
  readonly status: 'open' | 'closed';
  readonly closeReason: 'client' | 'idle' | null;
  readonly persona: string | null;
  readonly createdAt: string;
  readonly closedAt: string | null;
}

/** An event of a session with its place in the order. */
export interface StoredEvent {
  readonly seq: number;
  readonly type: EventType;
  readonly data: unknown;
}

/** Which events to read. */
export interface EventFilter {
  readonly tenant: string;
  readonly sessionId: string;
  /** Only events with a higher number. */
  readonly after: number;
  /** Only events of this turn. */
  readonly turnId?: string;
  readonly limit: number;
}

/** Who sees a session because it is theirs or their team's. */
export interface Viewer {
  readonly subject: string;
  readonly teams: readonly string[];
}

const visibleTo = (viewer: Viewer | null) => sql<boolean>`
  (subject = ${viewer?.subject ?? ''} or teams && ${viewer?.teams ?? []}::text[])`;

const sessionColumns = ['tenant', 'id', 'status', 'close_reason', 'persona', 'created_at', 'closed_at'] as const;

/** Everything that the gateway reads. It writes nothing: that is the workflow's part. */
export class SessionReader {
  readonly #db: TenantDatabase<Database>;

  constructor(db: TenantDatabase<Database>) {
    this.#db = db;
  }

  async session(tenant: string, id: string): Promise<SessionView | undefined> {
    const row = await this.#db
      .of(tenant)
      .selectFrom('session')
      .select(sessionColumns)
      .where(ofTenant(tenant))
      .where('id', '=', id)
      .executeTakeFirst();
    return row && viewOf(row);
  }

  /** Whom a session belongs to. */
  async ownerOf(
    tenant: string,
    id: string,
  ): Promise<{ readonly subject: string; readonly teams: readonly string[] } | undefined> {
    return this.#db
      .of(tenant)
      .selectFrom('session')
      .select(['subject', 'teams'])
      .where(ofTenant(tenant))
      .where('id', '=', id)
      .executeTakeFirst();
  }

  /** Sessions of a tenant that somebody may see, newest first, after the cursor. */
  async sessions(tenant: string, viewer: Viewer | null, limit: number, after?: Cursor): Promise<SessionView[]> {
    const rows = await this.#db
      .of(tenant)
      .selectFrom('session')
      .select(sessionColumns)
      .where(ofTenant(tenant))
      .$if(viewer !== null, (query) => query.where(visibleTo(viewer)))
      .$if(after !== undefined, (query) =>
        query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple('created_at', 'id'), '<', tuple(after?.createdAt ?? new Date(), after?.id ?? '')),
        ),
      )
      .orderBy('created_at', 'desc')
      .orderBy('id', 'desc')
      .limit(limit)
      .execute();
    return rows.map(viewOf);
  }

  async turns(tenant: string, sessionId: string): Promise<Turn[]> {
    return this.#db
      .of(tenant)
      .selectFrom('turn')
      .select(turnColumns)
      .where(ofTenant(tenant))
      .where('session_id', '=', sessionId)
      .orderBy('number')
      .execute();
  }

  async turn(tenant: string, sessionId: string, id: string): Promise<Turn | undefined> {
    return this.#db
      .of(tenant)
      .selectFrom('turn')
      .select(turnColumns)
      .where(ofTenant(tenant))
      .where('session_id', '=', sessionId)
      .where('id', '=', id)
      .executeTakeFirst();
  }

  /** Events in order. */
  async events(filter: EventFilter): Promise<StoredEvent[]> {
    const { turnId } = filter;
    const rows = await this.#db
      .of(filter.tenant)
      .selectFrom('session_event')
      .select(['seq', 'type', 'data'])
      .where(ofTenant(filter.tenant))
      .where('session_id', '=', filter.sessionId)
      .where('seq', '>', String(filter.after))
      .$if(turnId !== undefined, (query) => query.where('turn_id', '=', turnId ?? null))
      .orderBy('seq')
      .limit(filter.limit)
      .execute();
    return rows.map(({ seq, type, data }) => ({ seq: Number(seq), type, data }));
  }
}

interface SessionRow {
  readonly tenant: string;
  readonly id: string;
  readonly status: 'open' | 'closed';
  readonly close_reason: 'client' | 'idle' | null;
  readonly persona: string | null;
  readonly created_at: Date;
  readonly closed_at: Date | null;
}

const viewOf = (row: SessionRow): SessionView => ({
  id: row.id,
  workflowId: workflowIdOf(row.tenant, row.id),
  status: row.status,
  closeReason: row.close_reason,
  persona: row.persona,
  createdAt: row.created_at.toISOString(),
  closedAt: row.closed_at?.toISOString() ?? null,
});
