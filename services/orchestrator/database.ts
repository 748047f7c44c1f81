import { TenantDatabase } from '@somagent/kit';
import type { ExpressionBuilder, Generated } from 'kysely';
import type pg from 'pg';
import type { CloseReason, EventType, SessionStatus, Timings, TurnStatus, Usage } from './contract.ts';

/** One row per session. */
export interface SessionTable {
  tenant: string;
  id: string;
  subject: string;
  /** Teams that may see and use it: those of the token that created it. */
  teams: Generated<string[]>;
  persona: string | null;
  status: SessionStatus;
  close_reason: CloseReason | null;
  /** Sequence number of the newest event; incremented by every append. */
  last_seq: Generated<string>;
  created_at: Generated<Date>;
  closed_at: Date | null;
}

/** One row per turn. */
export interface TurnTable {
  tenant: string;
  session_id: string;
  id: string;
  number: number;
  prompt: string;
  answer: string;
  status: TurnStatus;
  error: string | null;
  /** The newest attempt at its generation: an older one that still runs may write no more. */
  attempt: number;
  /** Attempts that have begun. */
  tries: Generated<number>;
  /** How many of them a halt stopped. */
  halts: Generated<number>;
  /** Its generation shall stop: whoever appends text learns it in the answer. */
  interrupted: Generated<boolean>;
  usage: Usage | null;
  timings: Timings | null;
  created_at: Generated<Date>;
  completed_at: Date | null;
}

/** What happened in a session, in order: the source of every stream. */
export interface SessionEventTable {
  tenant: string;
  session_id: string;
  seq: string;
  type: EventType;
  turn_id: string | null;
  data: unknown;
  created_at: Generated<Date>;
}

/** The tables of the database `sessions`. */
export interface Database {
  session: SessionTable;
  turn: TurnTable;
  session_event: SessionEventTable;
}

/** Typed access to the database `sessions`, tenant by tenant; it owns the pool. */
export const openDatabase = (pool: pg.Pool): TenantDatabase<Database> => new TenantDatabase<Database>(pool);

/** The one way to say "rows of this tenant": every WHERE on these tables goes through it. */
export const ofTenant = (tenant: string) => (eb: ExpressionBuilder<Database, keyof Database>) =>
  eb.eb('tenant', '=', tenant);
