import { type Actor, event } from '@somagent/events';
import { outboxInsert } from '@somagent/kit/outbox.ts';
import { type QueryExecutorProvider, sql } from 'kysely';
import type { Period, Scope } from './budget.ts';

/** Names a budget of a tenant. */
export interface BudgetKey {
  readonly tenant: string;
  readonly scope: Scope;
  /** Of the team, persona or session, `*` for each that has no budget of its own; of the tenant its name. */
  readonly id: string;
  readonly period: Period;
}

/** A limit; null limits nothing. */
export interface Budget extends BudgetKey {
  readonly tokens: number | null;
  /** Whole millionths of a US dollar. */
  readonly costMicros: number | null;
}

/** A budget with its use in the present period. A budget of each (`*`) has the use of none. */
export interface BudgetUse extends Budget {
  readonly used: { readonly tokens: number; readonly costMicros: number };
  /** By what runs at the moment. */
  readonly reserved: { readonly tokens: number; readonly costMicros: number };
  /** Null: never. */
  readonly renewsAt: Date | null;
}

/** Who asks for a change, and by which request. */
export interface Origin {
  readonly actor: Actor;
  readonly requestId: string | null;
}

interface UseRow {
  readonly scope: Scope;
  readonly id: string;
  readonly period: Period;
  readonly [count: string]: string | Date | null;
}

/** The budgets of a tenant with their use, in the order of scope, id and period. */
export async function listBudgets(rows: QueryExecutorProvider, tenant: string): Promise<readonly BudgetUse[]> {
  const { rows: found } = await sql<UseRow>`
    select b.scope, b.id, b.period, b.tokens, b.cost_micros, u.used_tokens, u.used_micros, u.held_tokens, u.held_micros,
      case b.period when 'total' then null
        else (s.start at time zone 'utc' + ('1 ' || b.period)::interval) at time zone 'utc' end as renews_at
    from budget b
    cross join lateral (select case b.period when 'total' then timestamptz 'epoch'
      else date_trunc(b.period, clock_timestamp() at time zone 'utc') at time zone 'utc' end as start) s
    left join budget_use u on u.tenant = b.tenant and u.scope = b.scope and u.id = b.id and u.period = b.period
      and u.starts_at = s.start
    where b.tenant = ${tenant}
    order by array_position(array['tenant', 'team', 'persona', 'session'], b.scope), b.id, b.period`.execute(rows);
  return found.map((row) => useOf(tenant, row));
}

/** Sets a budget, and stores the audited event of it in the same statement. What is used already counts on. */
export async function putBudget(rows: QueryExecutorProvider, budget: Budget, origin: Origin): Promise<void> {
  const { tenant, scope, id, period, tokens, costMicros } = budget;
  const told = event('audit.control', 'budget.set', {
    tenant,
    ...origin,
    data: { scope, id, period, tokens, costMicros },
  });
  await sql`
    with told as (${outboxInsert([told])})
    insert into budget (tenant, scope, id, period, tokens, cost_micros)
    values (${tenant}, ${scope}, ${id}, ${period}, ${tokens}, ${costMicros})
    on conflict (tenant, scope, id, period) do update
      set tokens = excluded.tokens, cost_micros = excluded.cost_micros, changed_at = clock_timestamp()`.execute(rows);
}

/** Removes a budget, with its audited event. @returns whether there was one */
export async function removeBudget(rows: QueryExecutorProvider, key: BudgetKey, origin: Origin): Promise<boolean> {
  const { tenant, scope, id, period } = key;
  const told = event('audit.control', 'budget.removed', { tenant, ...origin, data: { scope, id, period } });
  const { rows: removed } = await sql`
    with removed as (
      delete from budget where tenant = ${tenant} and scope = ${scope} and id = ${id} and period = ${period} returning 1
    ), told as (${outboxInsert([told], sql`exists (select 1 from removed)`)})
    select 1 from removed`.execute(rows);
  return removed.length > 0;
}

function useOf(tenant: string, row: UseRow): BudgetUse {
  const { scope, id, period } = row;
  const count = (name: string) => Number(row[name] ?? 0);
  const limit = (name: string) => (row[name] === null ? null : Number(row[name]));
  return {
    ...{ tenant, scope, id, period, tokens: limit('tokens'), costMicros: limit('cost_micros') },
    used: { tokens: count('used_tokens'), costMicros: count('used_micros') },
    reserved: { tokens: count('held_tokens'), costMicros: count('held_micros') },
    renewsAt: row.renews_at instanceof Date ? row.renews_at : null,
  };
}
