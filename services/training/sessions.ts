import { TenantDatabase } from '@somagent/kit';
import type pg from 'pg';

/** What this service may read of a session. */
interface SessionColumns {
  tenant: string;
  id: string;
}

/** What this service may read of a turn. */
interface TurnColumns {
  tenant: string;
  session_id: string;
  number: number;
  prompt: string;
  answer: string;
  status: string;
}

/** The part of the database `sessions` that its owner grants to the role `sessions_training`. */
export interface SessionTables {
  session: SessionColumns;
  turn: TurnColumns;
}

/** The sessions, read-only and tenant by tenant. */
export type Sessions = TenantDatabase<SessionTables>;

/** Opens the database as its reader; it owns the pool. */
export const openSessions = (pool: pg.Pool): Sessions => new TenantDatabase<SessionTables>(pool);
