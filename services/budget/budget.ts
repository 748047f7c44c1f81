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

/** What Postgres says to a reservation. */
export interface ReserveRow {
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

/** A request with its options: what {@link reserveAll} takes. */
export interface Asked {
  readonly request: BudgetRequest;
  readonly options: ReserveOptions;
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
  requireBounds(request);
  const [row] = await reserveAll(executor, [{ request, options }]);
  return answerOf(row, request);
}

/** {@link reserve} for requests of one tenant, in their order, in one round trip and one commit. */
export async function reserveAll(
  executor: QueryExecutorProvider,
  asked: readonly Asked[],
): Promise<readonly ReserveRow[]> {
  const rows = await ask(executor, asked);
  const again = rows.flatMap(({ verdict }, place) => (verdict === 'refused, with expired' ? [place] : []));
  const tenant = asked[0]?.request.tenant;
  // What expired reservations and leases hold is taken back on the way, where it is missing.
  if (again.length === 0 || tenant === undefined || (await recall(executor, tenant)) === 0) return rows;
  const better = await ask(
    executor,
    asked.filter((_, place) => again.includes(place)),
  );
  return rows.map((row, place) => better[again.indexOf(place)] ?? row);
}

/** @throws Error when the request has ended already */
export function answerOf(row: ReserveRow | undefined, request: BudgetRequest): Reservation | Refusal {
  const { requestId } = request;
  if (row === undefined) throw new Error('Postgres gave no answer to a reservation');
  if (row.verdict === 'ended') {
    throw new Error(`request ${requestId} has ended already: give each attempt an id of its own`);
  }
  return row.expires_at === null ? refusalOf(row, request) : { granted: true, requestId, expiresAt: row.expires_at };
}

/** @throws RangeError for a bound that is no whole number */
export function requireBounds({ tokens, costMicros }: Actual): void {
  requireWhole('tokens', tokens);
  requireWhole('costMicros', costMicros);
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
  return end(executor, key.tenant, { requestId: key.requestId, state: 'settled', actual, events });
}

/** Ends a reservation of which nothing was used. */
export function release(
  executor: QueryExecutorProvider,
  key: { readonly tenant: string; readonly requestId: string },
  events: readonly OutboxEvent[] = [],
): Promise<Outcome> {
  const actual = { tokens: 0, costMicros: 0 };
  return end(executor, key.tenant, { requestId: key.requestId, state: 'released', actual, events });
}

/** Returns what expired reservations of these rows hold. @returns how many there were */
export async function takeBack(executor: QueryExecutorProvider, most = 500): Promise<number> {
  const { rows } = await sql<{ count: number }>`select budget_return(${most}) as count`.execute(executor);
  return rows[0]?.count ?? 0;
}

/** {@link takeBack}, and what the leases of a tenant hold. */
async function recall(executor: QueryExecutorProvider, tenant: string): Promise<number> {
  const { rows } = await sql<{ count: number }>`select budget_recall(${tenant}, 500) as count`.execute(executor);
  return rows[0]?.count ?? 0;
}

async function ask(executor: QueryExecutorProvider, asked: readonly Asked[]): Promise<readonly ReserveRow[]> {
  const items = asked.map(({ request, options: { seconds = 300, unsettled } }) => {
    const { requestId, team, persona, sessionId, tokens, costMicros } = request;
    return { request: requestId, team, persona, session: sessionId, tokens, micros: costMicros, seconds, unsettled };
  });
  const { rows } = await sql<ReserveRow>`
    select r.* from rows from (
      jsonb_to_recordset(${JSON.stringify(items)}::jsonb) as (request uuid, team text, persona text, session text,
        tokens bigint, micros bigint, seconds integer, unsettled jsonb)
    ) with ordinality as a (request, team, persona, session, tokens, micros, seconds, unsettled, place)
    cross join lateral budget_reserve(${asked[0]?.request.tenant}, a.request, a.team, a.persona, a.session, a.tokens,
      a.micros, a.seconds, a.unsettled) r
    order by a.place`.execute(executor);
  return rows;
}

/** A reservation that ends: what {@link endAll} takes. */
export interface Ended {
  readonly requestId: string;
  readonly state: 'settled' | 'released';
  readonly actual: Actual;
  readonly events: readonly OutboxEvent[];
}

async function end(executor: QueryExecutorProvider, tenant: string, ended: Ended): Promise<Outcome> {
  requireBounds(ended.actual);
  const [outcome] = await endAll(executor, tenant, [ended]);
  return outcome ?? 'unknown';
}

/** {@link settle} and {@link release} for requests of one tenant, in one round trip and one commit. */
export async function endAll(
  executor: QueryExecutorProvider,
  tenant: string,
  ended: readonly Ended[],
): Promise<readonly Outcome[]> {
  const items = ended.map(({ requestId, state, actual: { tokens, costMicros } }) => ({
    ...{ request: requestId, state, tokens, micros: costMicros },
  }));
  const events = ended.flatMap((one) => one.events);
  const places = ended.flatMap((one, index) => one.events.map(({ value }) => [value.id, index + 1]));
  const tell = sql`(select e.tell from ended e
    where e.place = (${JSON.stringify(Object.fromEntries(places))}::jsonb ->> event.id::text)::integer)`;
  const told = events.length === 0 ? sql`` : sql`, told as (${outboxInsert(events, tell)})`;
  // Every reservation is locked before any use is.
  const { rows } = await sql<{ outcome: Outcome }>`
    with item as materialized (
      select * from rows from (
        jsonb_to_recordset(${JSON.stringify(items)}::jsonb) as (request uuid, state text, tokens bigint, micros bigint)
      ) with ordinality as a (request, state, tokens, micros, place)
    ), locked as materialized (
      select r.request_id from (select request from item order by request) i
      cross join lateral (select request_id from budget_reservation
        where tenant = ${tenant} and request_id = i.request for update) r
    ), ended as materialized (
      select item.place, s.outcome, s.tell from item
      cross join lateral budget_settle(${tenant}, item.request, item.state, item.tokens, item.micros) s
      where (select count(*) from locked) >= 0
    )${told}
    select outcome from ended order by place`.execute(executor);
  return rows.map(({ outcome }) => outcome);
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
