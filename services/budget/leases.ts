import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Logger, messageOf } from '@somagent/kit/log.ts';
import { type QueryExecutorProvider, sql } from 'kysely';
import { Batches, type BudgetBatches, lineOf } from './batches.ts';
import {
  type Actual,
  type BudgetRequest,
  type Refusal,
  type ReserveOptions,
  release,
  requireBounds,
} from './budget.ts';

/** Options of {@link BudgetLeases}. */
export interface BudgetLeasesOptions {
  /** A TenantDatabase with the tables of budgets. */
  readonly database: { of(tenant: string): QueryExecutorProvider };
  /** Reserves what no lease has room for. */
  readonly exact: BudgetBatches;
  readonly log: Logger;
  /** Whether recalls are heard at the moment: while they are not, nothing is taken from a lease. */
  readonly hears: () => boolean;
  /** Time for which a lease is spent, seconds. @default 10 */
  readonly seconds?: number;
}

/** What Postgres says to what was taken from a lease: granted, unless the lease was recalled and there is no room. */
export type Confirmation = { readonly granted: true } | Refusal;

/** What is known of a request when it is about to be stored; made then, off its way. */
export type DrawOptions = () => ReserveOptions;

/** Postgres holds a lease so much longer, for what is on its way when it ends, seconds. */
const grace = 5;
/** A lease is refused where less than so many times as much is left beyond it. */
const room = 8;
/** Requests that a lease is for: the fewest, and the most. */
const sizes = { least: 8, most: 256 } as const;
/** Lines that are remembered; the oldest is forgotten. */
const capacity = 10_000;

/**
 * Room in budgets that this process has in advance: a request takes its bound from it at once, and the model need not
 * wait for Postgres. A lease is a reservation as any other, in every budget that applies, so that no number of processes
 * leases more than there is; what is taken from it becomes a reservation of its own, stored while the model begins. Only
 * when that is confirmed may anybody see of the answer. Near the end of a budget there are no leases, and whoever lacks
 * room recalls them: no request is refused for the sake of one.
 */
export class BudgetLeases {
  readonly #options: Required<BudgetLeasesOptions>;
  readonly #lines = new Map<string, Line>();

  constructor(options: BudgetLeasesOptions) {
    this.#options = { seconds: 10, ...options };
  }

  /**
   * Takes a request's bound from a lease.
   * @returns resolves when it is stored; undefined where no lease has the room: then it is to be reserved exactly.
   * @throws RangeError for a bound that is no whole number
   */
  draw(request: BudgetRequest, options: DrawOptions): Promise<Confirmation> | undefined {
    requireBounds(request);
    return this.#line(request).draw(request, options);
  }

  /** To be called when the leases of a tenant were recalled, or (without one) when a recall may have been missed. */
  recalled(tenant?: string): void {
    for (const line of this.#lines.values()) if (tenant === undefined || line.tenant === tenant) line.drop();
  }

  /** Gives every lease back. New requests may lease again. */
  async giveBack(): Promise<void> {
    await Promise.all([...this.#lines.values()].map((line) => line.giveBack()));
  }

  #line(request: BudgetRequest): Line {
    const key = lineOf(request);
    const known = this.#lines.get(key);
    if (known !== undefined) return known;
    const made = new Line(this.#options, request);
    this.#lines.set(key, made);
    const [oldest] = this.#lines;
    if (this.#lines.size > capacity && oldest !== undefined) {
      this.#lines.delete(oldest[0]);
      void oldest[1].giveBack();
    }
    return made;
  }
}

interface Drawn {
  readonly request: BudgetRequest;
  readonly options: DrawOptions;
}

/** A lease that is being spent. */
interface Lease {
  readonly id: string;
  readonly made: number;
  /** Until when, of the monotonic clock, milliseconds. */
  readonly until: number;
  /** Half of it is gone below these. */
  readonly half: Actual;
  readonly rest: { tokens: number; costMicros: number };
  readonly draws: Batches<Drawn, boolean>;
  /** What is on its way to Postgres. */
  readonly open: Set<Promise<unknown>>;
  readonly timer: NodeJS.Timeout;
}

/** Requests with the same tenant, team, persona and session: the same budgets apply to them. */
class Line {
  readonly #options: Required<BudgetLeasesOptions>;
  readonly #whose: BudgetRequest;
  #lease: Lease | undefined;
  #leasing: Promise<void> | undefined;
  readonly #returning = new Set<Promise<void>>();
  /** Counts recalls, so that a lease that was asked for before one is not spent. */
  #recalls = 0;
  #size: number = sizes.least;
  #askedAt = Number.NEGATIVE_INFINITY;
  #notBefore = 0;

  constructor(options: Required<BudgetLeasesOptions>, whose: BudgetRequest) {
    this.#options = options;
    this.#whose = whose;
  }

  get tenant(): string {
    return this.#whose.tenant;
  }

  draw(request: BudgetRequest, options: DrawOptions): Promise<Confirmation> | undefined {
    const now = performance.now();
    const lease = this.#usable(now, request);
    const isDense = now - this.#askedAt < this.#options.seconds * 1000;
    this.#askedAt = now;
    if (lease !== undefined) {
      lease.rest.tokens -= request.tokens;
      lease.rest.costMicros -= request.costMicros;
    }
    const isLow =
      lease === undefined || lease.rest.tokens < lease.half.tokens || lease.rest.costMicros < lease.half.costMicros;
    if (isLow && isDense) this.#renew(now, request);
    return lease === undefined ? undefined : this.#stored(lease, { request, options });
  }

  /** Postgres has taken back what it held, or perhaps not. */
  drop(): void {
    this.#recalls += 1;
    this.#notBefore = performance.now() + 1000;
    this.#size = sizes.least;
    this.#return(this.#take());
  }

  async giveBack(): Promise<void> {
    await this.#leasing;
    this.#return(this.#take());
    await Promise.all(this.#returning);
  }

  #usable(now: number, { tokens, costMicros }: Actual): Lease | undefined {
    const lease = this.#lease;
    if (lease === undefined || now >= lease.until || !this.#options.hears()) return undefined;
    return lease.rest.tokens >= tokens && lease.rest.costMicros >= costMicros ? lease : undefined;
  }

  #take(): Lease | undefined {
    const lease = this.#lease;
    this.#lease = undefined;
    return lease;
  }

  #stored(lease: Lease, drawn: Drawn): Promise<Confirmation> {
    const { request, options } = drawn;
    const { exact } = this.#options;
    const done = lease.draws
      .add(drawn)
      .then((isStored): Confirmation | Promise<Confirmation> =>
        isStored ? { granted: true } : exact.reserve(request, options()),
      );
    const open: Promise<unknown> = done.catch(() => undefined).finally(() => lease.open.delete(open));
    lease.open.add(open);
    return done;
  }

  /** Off the way of requests; whoever asks meanwhile reserves exactly. */
  #renew(now: number, request: BudgetRequest): void {
    if (this.#leasing !== undefined || now < this.#notBefore || !this.#options.hears()) return;
    this.#leasing = this.#ask(request)
      .catch((error) => {
        this.#notBefore = performance.now() + this.#options.seconds * 1000;
        this.#options.log.warn({ tenant: this.tenant, reason: messageOf(error) }, 'no budget can be leased');
      })
      .finally(() => {
        this.#leasing = undefined;
      });
  }

  async #ask(request: BudgetRequest): Promise<void> {
    const recalls = this.#recalls;
    const before = this.#lease;
    const most = {
      tokens: Math.min(request.tokens * this.#size, Number.MAX_SAFE_INTEGER),
      costMicros: Math.min(request.costMicros * this.#size, Number.MAX_SAFE_INTEGER),
    };
    await nextTurn();
    const { database, seconds } = this.#options;
    // Before the question: a lease ends here before it ends in Postgres.
    const made = performance.now();
    const id = randomUUID();
    const lasts = await lease(database.of(this.tenant), id, this.#whose, most, seconds);
    if (lasts === undefined) {
      this.#notBefore = made + (this.#size > sizes.least ? 0 : 1000);
      this.#size = Math.max(sizes.least, this.#size / 2);
      return;
    }
    if (before !== undefined && made - before.made < 500) this.#size = Math.min(sizes.most, this.#size * 2);
    const fresh = this.#leaseOf(id, made, made + lasts * 1000, most);
    if (this.#recalls !== recalls) return this.#return(fresh);
    this.#return(this.#take());
    this.#lease = fresh;
  }

  #leaseOf(id: string, made: number, until: number, most: Actual): Lease {
    const timer = setTimeout(() => void this.giveBack(), until - performance.now());
    timer.unref();
    const run = (drawn: readonly Drawn[]) => take(this.#options.database.of(this.tenant), this.tenant, id, drawn);
    return {
      ...{ id, made, until, timer, open: new Set() },
      half: { tokens: most.tokens / 2, costMicros: most.costMicros / 2 },
      rest: { ...most },
      draws: new Batches(run, 0, () => undefined),
    };
  }

  #return(lease: Lease | undefined): void {
    if (lease === undefined) return;
    clearTimeout(lease.timer);
    const returned = this.#release(lease).finally(() => this.#returning.delete(returned));
    this.#returning.add(returned);
  }

  /** Should Postgres be away, it ends there by itself. */
  async #release({ id, open }: Lease): Promise<void> {
    await Promise.all(open);
    const { tenant } = this;
    const { database, log } = this.#options;
    try {
      await release(database.of(tenant), { tenant, requestId: id });
    } catch (error) {
      log.warn({ tenant, reason: messageOf(error) }, 'a lease of a budget cannot be given back at the moment');
    }
  }
}

/** @returns for how long, seconds; undefined where a budget has no room for it */
async function lease(
  executor: QueryExecutorProvider,
  id: string,
  { tenant, team, persona, sessionId }: BudgetRequest,
  { tokens, costMicros }: Actual,
  seconds: number,
): Promise<number | undefined> {
  const { rows } = await sql<{ lasts: number }>`
    select lasts from budget_lease(${tenant}, ${id}, ${team}, ${persona}, ${sessionId}, ${tokens}, ${costMicros},
      ${seconds}, ${grace}, ${room})`.execute(executor);
  return rows[0]?.lasts;
}

/**
 * Makes reservations of a part of a lease; uses of budgets stay as they are. All or none: none when the lease was
 * recalled, or when one of the requests is known already.
 */
async function take(
  executor: QueryExecutorProvider,
  tenant: string,
  id: string,
  drawn: readonly Drawn[],
): Promise<readonly boolean[]> {
  // The request to the model goes first.
  await nextTurn();
  const items = drawn.map(({ request: { requestId, tokens, costMicros }, options }) => {
    const { seconds = 300, unsettled } = options();
    return { request: requestId, tokens, micros: costMicros, seconds, unsettled };
  });
  const isTaken = await move(executor, tenant, id, JSON.stringify(items)).catch((error: unknown) => {
    if (!isKnown(error)) throw error;
    return false;
  });
  return drawn.map(() => isTaken);
}

async function move(executor: QueryExecutorProvider, tenant: string, id: string, items: string): Promise<boolean> {
  const { rows } = await sql<{ taken: boolean }>`
    with item as materialized (
      select * from jsonb_to_recordset(${items}::jsonb) as (request uuid, tokens bigint, micros bigint, seconds integer,
        unsettled jsonb)
    ), lease as (
      update budget_reservation r set tokens = r.tokens - s.tokens, micros = r.micros - s.micros
      from (select sum(tokens)::bigint as tokens, sum(micros)::bigint as micros from item) s
      where r.tenant = ${tenant} and r.request_id = ${id} and r.state = 'held' and r.tokens >= s.tokens
        and r.micros >= s.micros
      returning r.*
    ), made as (
      insert into budget_reservation (tenant, request_id, state, tokens, micros, scopes, ids, periods, starts,
        expires_at, unsettled)
      select l.tenant, i.request, 'held', i.tokens, i.micros, l.scopes, l.ids, l.periods, l.starts,
        clock_timestamp() + make_interval(secs => i.seconds), i.unsettled
      from lease l cross join item i
    )
    select exists (select 1 from lease) as taken`.execute(executor);
  return rows[0]?.taken === true;
}

/** A request of this id is there already: the exact reservation says in what state. */
const isKnown = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === '23505';
