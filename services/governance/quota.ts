import { type Logger, messageOf } from '@somagent/kit';
import { type QueryExecutorProvider, sql } from 'kysely';
import type { LimitReached, Quota } from './neighbours.ts';
import { Problem } from './problem.ts';

/** A limit on requests. */
export interface Limit {
  /** Name in the tables; a tenant can have another value under it. */
  readonly name: string;
  /** Whether each subject has its own, or the whole tenant one. */
  readonly per: 'tenant' | 'subject';
  /** Windows begin at multiples of it, by the clock of Postgres. */
  readonly windowSeconds: number;
  /** Requests in a window, where the tenant has no value of its own. */
  readonly allowed: number;
}

/** Options of {@link PostgresQuota}. */
export interface PostgresQuotaOptions {
  /** A TenantDatabase with the tables of quotaMigration. */
  readonly database: { of(tenant: string): QueryExecutorProvider };
  readonly limits: readonly Limit[];
  readonly log: Logger;
  /** Leases kept at once; a forgotten one is lost to its tenant until the window ends. @default 50000 */
  readonly capacity?: number;
}

/** The largest block is this part of a limit, and this part of what is left of it: near the end blocks shrink to 1. */
const blockShare = 20;
const restShare = 4;

/**
 * Counts requests exactly across pods without asking Postgres on each: a pod leases a block of requests with one
 * statement, and spends it in memory until the window ends. More than a limit is never served; what an idle pod has
 * leased and not used is lost, at most one block. While Postgres is away, what is leased is still served, then nothing.
 */
export class PostgresQuota implements Quota {
  readonly #options: Required<PostgresQuotaOptions>;
  readonly #leases = new Map<string, Lease>();

  constructor(options: PostgresQuotaOptions) {
    this.#options = { capacity: 50_000, ...options };
  }

  /** Takes one request from each limit, or from none of them. @throws Problem unavailable. */
  take(tenant: string, subject: string): LimitReached | null | Promise<LimitReached | null> {
    const leases = this.#options.limits.map((limit) => this.#lease(limit, tenant, subject));
    return leases.every((lease) => lease.available) ? spend(leases) : this.#takeLater(leases);
  }

  async #takeLater(leases: readonly Lease[]): Promise<LimitReached | null> {
    for (;;) {
      const empty = leases.find((lease) => !lease.available);
      if (empty === undefined) return spend(leases);
      const reached = empty.exhausted;
      if (reached !== null) return reached;
      try {
        await empty.renew();
      } catch (error) {
        this.#options.log.error({ reason: messageOf(error) }, 'requests cannot be counted');
        throw new Problem('unavailable', 'limits cannot be counted at the moment: try again', { 'retry-after': '2' });
      }
    }
  }

  #lease(limit: Limit, tenant: string, subject: string): Lease {
    const who = limit.per === 'tenant' ? '' : subject;
    const key = `${limit.name}/${tenant}/${who}`;
    const known = this.#leases.get(key);
    if (known !== undefined) return known;
    const lease = new Lease(limit, () => leaseBlock(this.#options.database.of(tenant), limit, tenant, who));
    this.#leases.set(key, lease);
    const [oldest] = this.#leases.keys();
    if (this.#leases.size > this.#options.capacity && oldest !== undefined) this.#leases.delete(oldest);
    return lease;
  }
}

function spend(leases: readonly Lease[]): null {
  for (const lease of leases) lease.spend();
  return null;
}

/** A block that Postgres has given. */
interface Block {
  /** Requests in it; 0 when the limit is reached. */
  readonly size: number;
  readonly allowed: number;
  /** Until the window ends, milliseconds. */
  readonly left: number;
}

/** What this pod may still spend of one limit of one subject or tenant. */
class Lease {
  readonly #limit: Limit;
  readonly #ask: () => Promise<Block>;
  #rest = 0;
  #block: Block = { size: 0, allowed: 0, left: 0 };
  /** End of the window, of the monotonic clock. */
  #until = 0;
  #renewing: Promise<void> | undefined;

  constructor(limit: Limit, ask: () => Promise<Block>) {
    this.#limit = limit;
    this.#ask = ask;
  }

  get available(): boolean {
    return this.#rest > 0 && performance.now() < this.#until;
  }

  /** Set while nothing more is to be had in this window. */
  get exhausted(): LimitReached | null {
    const left = this.#until - performance.now();
    if (this.#block.size > 0 || left <= 0) return null;
    const { per, windowSeconds } = this.#limit;
    return {
      limit: `at most ${this.#block.allowed} requests of a ${per} in ${windowSeconds} s`,
      retryAfterSeconds: Math.max(1, Math.ceil(left / 1000)),
    };
  }

  spend(): void {
    this.#rest -= 1;
    // Early enough that nobody waits, unless blocks are so small that the next would mostly be unused.
    const early = this.#block.size >= 8 && this.#rest * 2 < this.#block.size;
    if (early) void this.renew().catch(() => undefined);
  }

  /** Leases the next block; whoever asks meanwhile waits for the same one. */
  renew(): Promise<void> {
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #renew(): Promise<void> {
    // Before the question: the window may end earlier here than in Postgres, never later.
    const askedAt = performance.now();
    const block = await this.#ask();
    const until = askedAt + block.left;
    // A block of the next window: what is left of this one ends with it.
    const same = Math.abs(until - this.#until) < 500;
    this.#rest = same && performance.now() < this.#until ? this.#rest + block.size : block.size;
    this.#block = block;
    this.#until = until;
  }
}

/** One statement: the row of the limit is locked, so that no two pods are given the same request. */
async function leaseBlock(db: QueryExecutorProvider, limit: Limit, tenant: string, subject: string): Promise<Block> {
  const { name, windowSeconds, allowed } = limit;
  const { rows } = await sql<{ size: string; allowed: string; left: string }>`
    with rule as (
      select coalesce((select allowed from quota_limit where tenant = ${tenant} and limit_name = ${name}),
          ${allowed}::bigint) as allowed,
        floor(extract(epoch from clock_timestamp()) / ${windowSeconds}::bigint) * ${windowSeconds}::bigint as begins
    ), lease as (
      insert into quota_window as q (tenant, limit_name, subject, window_start, allowed, granted, block)
      select ${tenant}, ${name}, ${subject}, to_timestamp(begins), allowed, size, size
      from rule, lateral (select greatest(1, allowed / ${blockShare}) as size) first
      where allowed > 0
      on conflict (tenant, limit_name, subject) do update set
        window_start = greatest(q.window_start, excluded.window_start),
        allowed = excluded.allowed,
        granted = case when q.window_start < excluded.window_start then excluded.granted else q.granted
          + greatest(1, least(excluded.allowed / ${blockShare}, (excluded.allowed - q.granted) / ${restShare})) end,
        block = case when q.window_start < excluded.window_start then excluded.granted else
          greatest(1, least(excluded.allowed / ${blockShare}, (excluded.allowed - q.granted) / ${restShare})) end
      where q.window_start < excluded.window_start or q.granted < excluded.allowed
      returning block
    )
    select coalesce(lease.block, 0) as size, rule.allowed,
      (rule.begins + ${windowSeconds}::bigint - extract(epoch from clock_timestamp())) * 1000 as left
    from rule left join lease on true`.execute(db);
  const [row] = rows;
  if (row === undefined) throw new Error('Postgres gave no answer to a lease');
  return { size: Number(row.size), allowed: Number(row.allowed), left: Math.max(0, Number(row.left)) };
}
