import { type OutboxEvent, outboxInsert } from '@somagent/kit/outbox.ts';
import { type QueryExecutorProvider, sql } from 'kysely';

/** Whose use a budget limits. */
export const scopes = ['tenant', 'team', 'persona', 'session'] as const;
export type Scope = (typeof scopes)[number];

/** The time that a budget is for, by UTC; `total` never renews. */
export const periods = ['day', 'month', 'total'] as const;
export type Period = (typeof periods)[number];

/** What is about to be used at most, and by whom. */
export interface BudgetRequest {
  readonly tenant: string;
  readonly team: string | null;
  /** OAuth client of the agent. */
  readonly persona: string | null;
  readonly sessionId: string | null;
  /** UUID; another one for each attempt. The same again is the same reservation. */
  readonly requestId: string;
  /** Upper bound: prompt and answer. */
  readonly tokens: number;
  /** Upper bound, whole millionths of a US dollar: at the highest price of those that may answer. */
  readonly costMicros: number;
}

/** Options of {@link reserve}. */
export interface ReserveOptions {
  /** Time after which it returns by itself; the request must have ended before. @default 300 */
  readonly seconds?: number;
  /** Told when it expires unsettled, because its process was killed. @default nothing is told */
  readonly unsettled?: OutboxEvent;
}

/** Room for a request, in every budget that applies. */
export interface Reservation {
  readonly granted: true;
  readonly requestId: string;
  readonly expiresAt: Date;
}

/** A budget has no room for the request; nothing is reserved. */
export interface Refusal {
  readonly granted: false;
  readonly scope: Scope;
  /** Of the team, persona or session; of the tenant its name. */
  readonly id: string;
  readonly period: Period;
  readonly unit: 'tokens' | 'costMicros';
  readonly limit: number;
  /** Used, and reserved by what runs at the moment. */
  readonly used: number;
  readonly asked: number;
  /** Null: never. */
  readonly renewsAt: Date | null;
  /** What to do. */
  readonly fix: string;
  /** All of it, in words. */
  readonly message: string;
}

/** What a request has really used. */
export interface Actual {
  readonly tokens: number;
  readonly costMicros: number;
}

/**
 * `late`: it had expired, and is charged all the same. `repeated`: it had ended before, nothing changes. `unknown`:
 * there is no such reservation.
 */
export type Outcome = 'settled' | 'released' | 'late' | 'repeated' | 'unknown';

interface ReserveRow {
  readonly verdict: 'granted' | 'repeated' | 'ended' | 'refused' | 'refused, with expired';
  readonly expires_at: Date | null;
  readonly scope: Scope;
  readonly id: string;
  readonly period: Period;
  readonly unit: Refusal['unit'];
  readonly allowed: string;
  readonly used: string;
  readonly renews_at: Date | null;
}

/**
 * Reserves an upper bound in every budget that applies, or in none: one round trip. No number of requests at once can
 * use more than a budget, as long as each has ended within its time and uses no more than its bound.
 * @param executor the tenant's rows: `database.of(tenant)`, or a transaction on them
 * @throws RangeError for a bound that is no whole number; Error when the request of this id has ended already.
 */
export async function reserve(
  executor: QueryExecutorProvider,
  request: BudgetRequest,
  options: ReserveOptions = {},
): Promise<Reservation | Refusal> {
  requireWhole('tokens', request.tokens);
  requireWhole('costMicros', request.costMicros);
  const first = await ask(executor, request, options);
  // What expired reservations hold is taken back on the way, where it is missing.
  const retry = first.verdict === 'refused, with expired' && (await takeBack(executor)) > 0;
  const row = retry ? await ask(executor, request, options) : first;
  if (row.verdict === 'ended') {
    throw new Error(`request ${request.requestId} has ended already: give each attempt an id of its own`);
  }
  if (row.expires_at !== null) return { granted: true, requestId: request.requestId, expiresAt: row.expires_at };
  return refusalOf(row, request);
}

/**
 * Ends a reservation with what was really used; what was reserved beyond it is free again. Events are stored in the
 * same statement, exactly if it settles: a request is told once.
 */
export function settle(
  executor: QueryExecutorProvider,
  key: { readonly tenant: string; readonly requestId: string },
  actual: Actual,
  events: readonly OutboxEvent[] = [],
): Promise<Outcome> {
  return end(executor, key, 'settled', actual, events);
}

/** Ends a reservation of which nothing was used. */
export function release(
  executor: QueryExecutorProvider,
  key: { readonly tenant: string; readonly requestId: string },
  events: readonly OutboxEvent[] = [],
): Promise<Outcome> {
  return end(executor, key, 'released', { tokens: 0, costMicros: 0 }, events);
}

/** Returns what expired reservations of these rows hold. @returns how many there were */
export async function takeBack(executor: QueryExecutorProvider, most = 500): Promise<number> {
  const { rows } = await sql<{ count: number }>`select budget_return(${most}) as count`.execute(executor);
  return rows[0]?.count ?? 0;
}

async function ask(
  executor: QueryExecutorProvider,
  { tenant, team, persona, sessionId, requestId, tokens, costMicros }: BudgetRequest,
  { seconds = 300, unsettled }: ReserveOptions,
): Promise<ReserveRow> {
  const event = unsettled === undefined ? null : JSON.stringify(unsettled);
  const { rows } = await sql<ReserveRow>`
    select * from budget_reserve(${tenant}, ${requestId}, ${team}, ${persona}, ${sessionId}, ${tokens}, ${costMicros},
      ${seconds}, ${event}::jsonb)`.execute(executor);
  const [row] = rows;
  if (row === undefined) throw new Error('Postgres gave no answer to a reservation');
  return row;
}

async function end(
  executor: QueryExecutorProvider,
  { tenant, requestId }: { readonly tenant: string; readonly requestId: string },
  state: 'settled' | 'released',
  { tokens, costMicros }: Actual,
  events: readonly OutboxEvent[],
): Promise<Outcome> {
  requireWhole('tokens', tokens);
  requireWhole('costMicros', costMicros);
  const ended = sql`select * from budget_settle(${tenant}, ${requestId}, ${state}, ${tokens}, ${costMicros})`;
  const told = events.length === 0 ? sql`` : sql`, told as (${outboxInsert(events, sql`(select tell from ended)`)})`;
  const { rows } = await sql<{ outcome: Outcome }>`
    with ended as materialized (${ended})${told} select outcome from ended`.execute(executor);
  return rows[0]?.outcome ?? 'unknown';
}

function refusalOf(row: ReserveRow, { tokens, costMicros }: BudgetRequest): Refusal {
  const { scope, id, period, unit, renews_at: renewsAt } = row;
  const [limit, used] = [Number(row.allowed), Number(row.used)];
  const asked = unit === 'tokens' ? tokens : costMicros;
  const rest = Math.max(0, limit - used);
  const when = renewsAt === null ? 'it never renews' : `it renews at ${renewsAt.toISOString()}`;
  const fix =
    rest > 0
      ? `ask for at most ${rest} ${unit} (fewer max_tokens, a shorter prompt), or have the budget raised`
      : `${renewsAt === null ? '' : `wait until ${renewsAt.toISOString()}, or `}have the budget raised`;
  const message =
    `the ${period} budget of ${scope} ${id} is ${limit} ${unit}, ${used} of them are used or reserved and the ` +
    `request needs up to ${asked}; ${when}: ${fix} (soma budget set ${scope} ${id} ${period})`;
  return { granted: false, scope, id, period, unit, limit, used, asked, renewsAt, fix, message };
}

function requireWhole(field: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 0) return;
  throw new RangeError(`${field} is ${value}: give a whole number, 0 or more`);
}
