import { isolateTenants } from '@somagent/kit/tenancy.ts';
import { type Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';

/** The tables of budgets; all of them have rows of tenants. */
export const budgetTables = ['budget', 'budget_use', 'budget_reservation'] as const;

/**
 * Creates the tables and functions of budgets; goes into the migrations of the service that owns the database, after
 * its outbox. Locks are taken in one order everywhere, so that no two requests can wait for each other: first the
 * reservation, then uses by (tenant, scope, id, period, starts_at).
 */
export const budgetMigration: Migration = {
  async up(db: Kysely<unknown>) {
    await createTables(db);
    await createReserve(db);
    await createSettle(db);
    await createReturn(db);
    await createLease(db);
    await createRecall(db);
    for (const table of budgetTables) await isolateTenants(db, table);
  },
};

/** For databases that had {@link budgetMigration} when its functions still read every use of a tenant. */
export const budgetKeysMigration: Migration = {
  async up(db: Kysely<unknown>) {
    await createReserve(db);
    await createSettle(db);
    await createReturn(db);
  },
};

/** For databases that had {@link budgetMigration} when there were no leases. */
export const budgetLeaseMigration: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`alter table budget_reservation add column if not exists lease boolean not null default false`.execute(db);
    await createLeaseIndex(db);
    await createReserve(db);
    await createLease(db);
    await createRecall(db);
  },
};

/** Channel on which processes with leases are told whose were recalled: the payload is the tenant. */
export const recallChannel = 'budget_recall';

/** Key of the advisory locks, whose second part is the tenant: a lease is not made while its budgets change. */
const leaseLock = 0x6c656173;

/** For the owner, after its migrations: lets another role reserve, settle and administer, one tenant at a time. */
export async function grantBudgets<Tables>(db: Kysely<Tables>, role: string): Promise<void> {
  for (const table of budgetTables) {
    await sql`grant select, insert, update, delete on ${sql.table(table)} to ${sql.ref(role)}`.execute(db);
  }
}

async function createTables(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table budget (
      tenant text not null,
      scope text not null check (scope in ('tenant', 'team', 'persona', 'session')),
      -- '*' is the budget of each one that has none of its own.
      id text not null,
      period text not null check (period in ('day', 'month', 'total')),
      tokens bigint check (tokens >= 0),
      cost_micros bigint check (cost_micros >= 0),
      changed_at timestamptz(3) not null default clock_timestamp(),
      primary key (tenant, scope, id, period),
      check (tokens is not null or cost_micros is not null)
    )`.execute(db);
  // Half of each page stays free: an update then touches no index.
  await sql`
    create table budget_use (
      tenant text not null,
      scope text not null,
      id text not null,
      period text not null,
      starts_at timestamptz not null,
      used_tokens bigint not null default 0,
      used_micros bigint not null default 0,
      held_tokens bigint not null default 0 check (held_tokens >= 0),
      held_micros bigint not null default 0 check (held_micros >= 0),
      primary key (tenant, scope, id, period, starts_at)
    ) with (fillfactor = 50)`.execute(db);
  await sql`
    create table budget_reservation (
      tenant text not null,
      request_id uuid not null,
      state text not null check (state in ('held', 'settled', 'released', 'returned')),
      tokens bigint not null check (tokens >= 0),
      micros bigint not null check (micros >= 0),
      -- The uses that it holds, side by side.
      scopes text[] not null,
      ids text[] not null,
      periods text[] not null,
      starts timestamptz[] not null,
      expires_at timestamptz not null,
      -- The event to be told if nobody settles.
      unsettled jsonb,
      -- Not a request's: room from which a process takes reservations. What it holds is not given to any request yet.
      lease boolean not null default false,
      primary key (tenant, request_id)
    )`.execute(db);
  await createLeaseIndex(db);
  await sql`create index budget_reservation_expiry on budget_reservation (state, expires_at)`.execute(db);
}

/** Leases are few among reservations. */
async function createLeaseIndex(db: Kysely<unknown>): Promise<void> {
  await sql`create index if not exists budget_reservation_lease on budget_reservation (tenant)
    where lease and state = 'held'`.execute(db);
}

/**
 * One round trip: finds the budgets that apply, locks their uses, and reserves in all of them or in none. `rows 1` here
 * and below: with the thousand that Postgres assumes, a batch looks so costly that each statement is compiled (JIT).
 */
async function createReserve(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function budget_reserve(
      p_tenant text, p_request uuid, p_team text, p_persona text, p_session text,
      p_tokens bigint, p_micros bigint, p_seconds integer, p_unsettled jsonb
    ) returns table (
      verdict text, expires_at timestamptz, scope text, id text, period text, unit text,
      allowed bigint, used bigint, renews_at timestamptz
    ) language plpgsql rows 1 as $$
    #variable_conflict use_column
    declare
      v_now timestamptz := clock_timestamp();
      v_until timestamptz := v_now + make_interval(secs => p_seconds);
      v_scopes text[]; v_ids text[]; v_periods text[]; v_starts timestamptz[];
      v_tokens bigint[]; v_micros bigint[];
      v_use budget_use; v_unit text; v_allowed bigint; v_used bigint;
    begin
      select coalesce(array_agg(b.scope order by b.scope, b.own, b.period), '{}'),
        coalesce(array_agg(b.own order by b.scope, b.own, b.period), '{}'),
        coalesce(array_agg(b.period order by b.scope, b.own, b.period), '{}'),
        coalesce(array_agg(b.start order by b.scope, b.own, b.period), '{}'),
        coalesce(array_agg(b.tokens order by b.scope, b.own, b.period), '{}'),
        coalesce(array_agg(b.cost_micros order by b.scope, b.own, b.period), '{}')
      into v_scopes, v_ids, v_periods, v_starts, v_tokens, v_micros
      from (
        select distinct on (b.scope, b.period) b.scope, s.own, b.period, b.tokens, b.cost_micros,
          case b.period when 'total' then timestamptz 'epoch'
            else date_trunc(b.period, v_now at time zone 'utc') at time zone 'utc' end as start
        from (values ('tenant', p_tenant), ('team', p_team), ('persona', p_persona), ('session', p_session)) s (kind, own)
        join budget b on b.tenant = p_tenant and b.scope = s.kind and b.id in (s.own, '*')
        where s.own is not null
        order by b.scope, b.period, b.id = '*'
      ) b;

      insert into budget_reservation values (p_tenant, p_request, 'held', p_tokens, p_micros,
        v_scopes, v_ids, v_periods, v_starts, v_until, p_unsettled) on conflict do nothing;
      if not found then
        update budget_reservation r set expires_at = v_until
          where r.tenant = p_tenant and r.request_id = p_request and r.state = 'held' returning r.expires_at into v_until;
        return query select case when found then 'repeated' else 'ended' end, case when found then v_until end,
          null::text, null::text, null::text, null::text, null::bigint, null::bigint, null::timestamptz;
        return;
      end if;

      -- By their whole key, one by one: joined, they could be looked for among all uses of the tenant.
      for v_i in 1 .. cardinality(v_scopes) loop
        select * into v_use from budget_use u where u.tenant = p_tenant and u.scope = v_scopes[v_i] and u.id = v_ids[v_i]
          and u.period = v_periods[v_i] and u.starts_at = v_starts[v_i] for update;
        if not found then
          insert into budget_use (tenant, scope, id, period, starts_at)
            values (p_tenant, v_scopes[v_i], v_ids[v_i], v_periods[v_i], v_starts[v_i]) on conflict do nothing;
          select * into v_use from budget_use u where u.tenant = p_tenant and u.scope = v_scopes[v_i]
            and u.id = v_ids[v_i] and u.period = v_periods[v_i] and u.starts_at = v_starts[v_i] for update;
        end if;
        v_unit := case
          when v_use.used_tokens + v_use.held_tokens + p_tokens > v_tokens[v_i] then 'tokens'
          when v_use.used_micros + v_use.held_micros + p_micros > v_micros[v_i] then 'costMicros' end;
        if v_unit is not null then
          delete from budget_reservation r where r.tenant = p_tenant and r.request_id = p_request;
          v_allowed := case v_unit when 'tokens' then v_tokens[v_i] else v_micros[v_i] end;
          v_used := case v_unit when 'tokens' then v_use.used_tokens + v_use.held_tokens
            else v_use.used_micros + v_use.held_micros end;
          return query select
            case when exists (select 1 from budget_reservation r where r.tenant = p_tenant and r.state = 'held'
              and r.expires_at <= v_now) or exists (select 1 from budget_reservation r
                cross join unnest(r.scopes, r.ids, r.periods) w (scope, id, period)
              where r.tenant = p_tenant and r.lease and r.state = 'held' and w.scope = v_use.scope and w.id = v_use.id
                and w.period = v_use.period) then 'refused, with expired' else 'refused' end,
            null::timestamptz, v_use.scope, v_use.id, v_use.period, v_unit, v_allowed, v_used,
            case v_use.period when 'total' then null
              else (v_use.starts_at at time zone 'utc' + ('1 ' || v_use.period)::interval) at time zone 'utc' end;
          return;
        end if;
      end loop;

      for v_i in 1 .. cardinality(v_scopes) loop
        update budget_use u set held_tokens = u.held_tokens + p_tokens, held_micros = u.held_micros + p_micros
          where u.tenant = p_tenant and u.scope = v_scopes[v_i] and u.id = v_ids[v_i] and u.period = v_periods[v_i]
            and u.starts_at = v_starts[v_i];
      end loop;
      return query select 'granted', v_until, null::text, null::text, null::text, null::text, null::bigint,
        null::bigint, null::timestamptz;
    end $$`.execute(db);
}

/** Ends a reservation with what was really used. One that has expired is charged too: it was used. */
async function createSettle(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function budget_settle(p_tenant text, p_request uuid, p_state text, p_tokens bigint, p_micros bigint)
    returns table (outcome text, tell boolean) language plpgsql rows 1 as $$
    declare
      v_known budget_reservation;
      v_tokens bigint; v_micros bigint;
    begin
      select * into v_known from budget_reservation r
        where r.tenant = p_tenant and r.request_id = p_request for update;
      if not found then return query select 'unknown', false; return; end if;
      if v_known.state in ('settled', 'released') then return query select 'repeated', false; return; end if;

      -- What has expired holds nothing any more.
      v_tokens := case v_known.state when 'held' then v_known.tokens else 0 end;
      v_micros := case v_known.state when 'held' then v_known.micros else 0 end;
      -- They stand in the order in which they are locked.
      for v_i in 1 .. cardinality(v_known.scopes) loop
        update budget_use u set held_tokens = u.held_tokens - v_tokens, held_micros = u.held_micros - v_micros,
            used_tokens = u.used_tokens + p_tokens, used_micros = u.used_micros + p_micros
          where u.tenant = p_tenant and u.scope = v_known.scopes[v_i] and u.id = v_known.ids[v_i]
            and u.period = v_known.periods[v_i] and u.starts_at = v_known.starts[v_i];
      end loop;
      update budget_reservation r set state = p_state where r.tenant = p_tenant and r.request_id = p_request;
      return query select case v_known.state when 'held' then p_state else 'late' end,
        v_known.state = 'held' or v_known.unsettled is null;
    end $$`.execute(db);
}

/** Returns what expired reservations hold, and tells the event that each has left for this case. */
async function createReturn(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function budget_return(p_most integer) returns integer language plpgsql as $$
    declare
      v_tenants text[]; v_requests uuid[]; v_use record;
    begin
      select array_agg(c.tenant), array_agg(c.request_id) into v_tenants, v_requests from (
        select r.tenant, r.request_id from budget_reservation r
        where r.state = 'held' and r.expires_at <= clock_timestamp()
        order by r.expires_at limit p_most for update skip locked) c;
      if v_tenants is null then return 0; end if;

      for v_use in
        select r.tenant, w.scope, w.id, w.period, w.starts_at, sum(r.tokens) as tokens, sum(r.micros) as micros
        from unnest(v_tenants, v_requests) c (tenant, request_id)
        join budget_reservation r on r.tenant = c.tenant and r.request_id = c.request_id
        cross join unnest(r.scopes, r.ids, r.periods, r.starts) w (scope, id, period, starts_at)
        group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5
      loop
        update budget_use u set held_tokens = u.held_tokens - v_use.tokens, held_micros = u.held_micros - v_use.micros
          where u.tenant = v_use.tenant and u.scope = v_use.scope and u.id = v_use.id and u.period = v_use.period
            and u.starts_at = v_use.starts_at;
      end loop;
      insert into outbox (id, topic, key, value, headers)
        select (r.unsettled #>> '{value,id}')::uuid, r.unsettled ->> 'topic', r.unsettled ->> 'key',
          r.unsettled -> 'value', r.unsettled -> 'headers'
        from unnest(v_tenants, v_requests) c (tenant, request_id)
        join budget_reservation r on r.tenant = c.tenant and r.request_id = c.request_id
        where r.unsettled is not null
        on conflict (id) do nothing;
      update budget_reservation r set state = 'returned'
        from unnest(v_tenants, v_requests) c (tenant, request_id)
        where r.tenant = c.tenant and r.request_id = c.request_id;
      return cardinality(v_tenants);
    end $$`.execute(db);
}

/**
 * A lease: a reservation from which a process takes those of its requests. Refused, without a row, where one of the
 * budgets has less than `p_room` times as much left beyond it: near their end budgets are for exact reservations. It
 * lasts at most until midnight by UTC, when periods end, and `p_grace` longer for what is under way then.
 */
async function createLease(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function budget_lease(
      p_tenant text, p_lease uuid, p_team text, p_persona text, p_session text, p_tokens bigint, p_micros bigint,
      p_seconds integer, p_grace integer, p_room integer
    ) returns table (lasts double precision) language plpgsql rows 1 as $$
    #variable_conflict use_column
    declare
      v_now timestamptz := clock_timestamp();
      v_verdict text; v_known budget_reservation; v_room boolean;
    begin
      perform pg_advisory_xact_lock_shared(${sql.lit(leaseLock)}, hashtext(p_tenant));
      select r.verdict into v_verdict from budget_reserve(p_tenant, p_lease, p_team, p_persona, p_session, p_tokens,
        p_micros, p_seconds + p_grace, null) r;
      if v_verdict <> 'granted' then return; end if;
      select * into v_known from budget_reservation r where r.tenant = p_tenant and r.request_id = p_lease;
      for v_i in 1 .. cardinality(v_known.scopes) loop
        select coalesce(b.tokens - u.used_tokens - u.held_tokens >= p_room * p_tokens, true)
            and coalesce(b.cost_micros - u.used_micros - u.held_micros >= p_room * p_micros, true) into v_room
          from budget_use u, budget b
          where u.tenant = p_tenant and u.scope = v_known.scopes[v_i] and u.id = v_known.ids[v_i]
            and u.period = v_known.periods[v_i] and u.starts_at = v_known.starts[v_i]
            and b.tenant = p_tenant and b.scope = u.scope and b.id in (u.id, '*') and b.period = u.period
          order by b.id = '*' limit 1;
        if v_room is not true then
          perform budget_settle(p_tenant, p_lease, 'released', 0, 0);
          delete from budget_reservation r where r.tenant = p_tenant and r.request_id = p_lease;
          return;
        end if;
      end loop;
      update budget_reservation r set lease = true where r.tenant = p_tenant and r.request_id = p_lease;
      return query select least(p_seconds, extract(epoch from
        date_trunc('day', v_now at time zone 'utc') + interval '1 day' - v_now at time zone 'utc'))::float8;
    end $$`.execute(db);
}

/**
 * Returns what the leases of a tenant hold, and what has expired: for whoever lacks the room, and whenever a budget of
 * the tenant changes. A reservation that is taken from a lease at the same moment came first, or finds the lease ended.
 */
async function createRecall(db: Kysely<unknown>): Promise<void> {
  await sql`
    create or replace function budget_recall(p_tenant text, p_most integer) returns integer language plpgsql as $$
    begin
      update budget_reservation r set expires_at = '-infinity' from (
        select l.request_id from budget_reservation l
        where l.tenant = p_tenant and l.lease and l.state = 'held' order by l.request_id for update) l
      where r.tenant = p_tenant and r.request_id = l.request_id;
      if found then perform pg_notify(${sql.lit(recallChannel)}, p_tenant); end if;
      return budget_return(p_most);
    end $$`.execute(db);
  await sql`
    create or replace function budget_changed() returns trigger language plpgsql as $$
    declare
      v_tenant text := case tg_op when 'DELETE' then old.tenant else new.tenant end;
    begin
      perform pg_advisory_xact_lock(${sql.lit(leaseLock)}, hashtext(v_tenant));
      perform budget_recall(v_tenant, 500);
      return null;
    end $$`.execute(db);
  await sql`
    create or replace trigger budget_changed after insert or update or delete on budget
    for each row execute function budget_changed()`.execute(db);
}
