import { type Expression, type SqlBool, sql } from 'kysely';
import type { MemoryKind } from './database.ts';

/** Whose memories are visible: any of these, always within one tenant. Empty shows nothing. */
export interface Visibility {
  /** Memories of this subject. @default none */
  readonly owner?: string;
  /** Memories that these teams share. @default none */
  readonly teams?: readonly string[];
  readonly personas?: readonly string[];
  readonly sessions?: readonly string[];
  /** Every memory of the tenant: for its administrators. @default false */
  readonly whole?: boolean;
}

/** What else a memory has to be. */
export interface MemoryFilter {
  readonly ids?: readonly string[] | undefined;
  readonly owner?: string | undefined;
  readonly team?: string | undefined;
  /** Null: of no persona. */
  readonly persona?: string | null | undefined;
  readonly sessionId?: string | undefined;
  readonly kinds?: readonly MemoryKind[] | undefined;
  /** Created at or after, and before. */
  readonly since?: Date | undefined;
  readonly until?: Date | undefined;
}

/** A tenant's memories that somebody may see, and which of them are meant. */
export interface Scope {
  readonly tenant: string;
  readonly visible: Visibility;
  readonly filter: MemoryFilter;
}

const anyOf = (column: string, values: readonly string[], type: string) =>
  sql<SqlBool>`${sql.ref(column)} = any(${[...values]}::${sql.raw(type)}[])`;

/** The condition of a visibility; false where it is empty. */
export function visibleRows({
  owner,
  teams = [],
  personas = [],
  sessions = [],
  whole,
}: Visibility): Expression<SqlBool> {
  if (whole === true) return sql<SqlBool>`true`;
  const parts = [
    ...(owner === undefined ? [] : [sql<SqlBool>`owner = ${owner}`]),
    ...(teams.length === 0 ? [] : [anyOf('team', teams, 'text')]),
    ...(personas.length === 0 ? [] : [anyOf('persona', personas, 'text')]),
    ...(sessions.length === 0 ? [] : [anyOf('session_id', sessions, 'uuid')]),
  ];
  return parts.length === 0 ? sql<SqlBool>`false` : sql<SqlBool>`(${sql.join(parts, sql` or `)})`;
}

/** The condition of a filter. */
export function filteredRows(filter: MemoryFilter): Expression<SqlBool> {
  const { ids, owner, team, persona, sessionId, kinds, since, until } = filter;
  const parts = [
    ...(ids === undefined ? [] : [anyOf('id', ids, 'uuid')]),
    ...(owner === undefined ? [] : [sql`owner = ${owner}`]),
    ...(team === undefined ? [] : [sql`team = ${team}`]),
    ...(persona === undefined ? [] : [persona === null ? sql`persona is null` : sql`persona = ${persona}`]),
    ...(sessionId === undefined ? [] : [sql`session_id = ${sessionId}::uuid`]),
    ...(kinds === undefined ? [] : [anyOf('kind', kinds, 'text')]),
    ...(since === undefined ? [] : [sql`created_at >= ${since}`]),
    ...(until === undefined ? [] : [sql`created_at < ${until}`]),
  ];
  return parts.length === 0 ? sql<SqlBool>`true` : sql<SqlBool>`(${sql.join(parts, sql` and `)})`;
}

/** Rows of a scope, expired ones included. The tenant is in the condition too, beside row-level security. */
export const allRowsOf = ({ tenant, visible, filter }: Scope): Expression<SqlBool> =>
  sql<SqlBool>`tenant = ${tenant} and ${visibleRows(visible)} and ${filteredRows(filter)}`;

/** Rows of a scope, expired ones left out. */
export const rowsOf = (scope: Scope): Expression<SqlBool> =>
  sql<SqlBool>`${allRowsOf(scope)} and (expires_at is null or expires_at > clock_timestamp())`;
