import type { QuotaTables } from '@somagent/governance';
import type { TenantDatabase } from '@somagent/kit';
import type { Generated, GeneratedAlways } from 'kysely';

/** What kind of thing is remembered: what happened, what is so, or a summary of others. */
export const memoryKinds = ['episodic', 'semantic', 'summary'] as const;

/** One of {@link memoryKinds}. */
export type MemoryKind = (typeof memoryKinds)[number];

/** One row per memory: the source of truth; vectors are derived from it. */
export interface MemoryTable {
  tenant: string;
  id: string;
  /** `sub` of whoever it is about: always sees it, and may have it forgotten. */
  owner: string;
  /** A team that shares it. */
  team: string | null;
  persona: string | null;
  session_id: string | null;
  kind: MemoryKind;
  text: string;
  /** SHA-256 of the normalized text. */
  content_hash: Buffer;
  /** 0 to 1. */
  importance: number;
  /** How often the same was stored. */
  seen: Generated<number>;
  /** A memory of the same scope that says nearly the same; it answers in this one's place. */
  duplicate_of: string | null;
  created_at: Generated<Date>;
  expires_at: Date | null;
  search: GeneratedAlways<string>;
}

/** Memories whose vector is not known to be what the row says, in order. */
export interface IndexTaskTable {
  seq: GeneratedAlways<string>;
  tenant: string;
  memory_id: string;
  created_at: Generated<Date>;
}

/** Ids of memories that were deleted, so that a late repetition of a request does not store them again. */
export interface ForgottenTable {
  tenant: string;
  memory_id: string;
  forgotten_at: Generated<Date>;
  /** When its points were looked for after their deletion, and not found; null while the vector store owes that. */
  wiped_at: Date | null;
}

/** The tables of the database `memory`. */
export interface Tables extends QuotaTables {
  memory: MemoryTable;
  index_task: IndexTaskTable;
  forgotten: ForgottenTable;
}

/** The database `memory`; each connection has a tenant, and row-level security keeps it to that one. */
export type Database = TenantDatabase<Tables>;
