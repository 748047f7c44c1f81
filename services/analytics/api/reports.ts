import { ClickHouseError } from '@clickhouse/client';
import { Problem } from '@somagent/governance';
import { database, type Parameters, type Warehouse } from '../warehouse/warehouse.ts';
import { columnOf, type Grouping } from './views.ts';

/** Whose rows may be read: one tenant's, or all of them. Made by {@link scopeOf} of the caller only. */
export type Scope = { readonly tenant: string } | 'all';

/** What a report is about. */
export interface ReportRange {
  readonly from: Date;
  readonly to: Date;
  /** Seconds. */
  readonly step: number;
  readonly by?: Grouping | undefined;
}

/** The views that reports are made from; each has the columns tenant and time. */
type View = 'session_latency' | 'slm_latency' | 'consumption' | 'decision' | 'error' | 'turn_outcome';

/** What each row of a report has besides its figures. */
export interface Bucket {
  readonly time: string;
  readonly group: string;
}

/** Part of every statement: nothing is read but what the scope admits. */
const admitted = '({everything:Bool} or tenant = {tenant:String})';

const scopeParameters = (scope: Scope): Parameters =>
  scope === 'all' ? { everything: true, tenant: '' } : { everything: false, tenant: scope.tenant };

const seconds = (moment: Date): number => moment.getTime() / 1000;
const within = (column: string) =>
  `${column} >= fromUnixTimestamp64Milli(toInt64({from:Float64} * 1000)) and ${column} < fromUnixTimestamp64Milli(toInt64({to:Float64} * 1000))`;

/** Three quantiles of a column, as an array. */
const quantiles = (column: string) => `quantilesIf(0.5, 0.95, 0.99)(ifNull(${column}, 0), ${column} is not null)`;

/** Reads reports as the user who may only select. Every value of a request is a parameter of the statement. */
export class Reports {
  readonly #warehouse: Warehouse;

  constructor(warehouse: Warehouse) {
    this.#warehouse = warehouse;
  }

  async latencies(scope: Scope, range: ReportRange, slm: boolean) {
    const parts = ['platform', 'queue', 'first_token', 'model', 'total'] as const;
    const figures = parts.map((part) => `${quantiles(`${part}_ms`)} as ${part}`).join(', ');
    const rows = await this.#buckets<Bucket & { turns: number } & Record<(typeof parts)[number], Triple>>(
      slm ? 'slm_latency' : 'session_latency',
      `count() as turns, ${figures}`,
      scope,
      range,
    );
    return rows.map(({ time, group, turns, platform, queue, first_token, model, total }) => ({
      ...{ time, group, turns, platform: named(platform), queue: named(queue), firstToken: named(first_token) },
      ...{ model: named(model), total: named(total) },
    }));
  }

  usage(scope: Scope, range: ReportRange) {
    return this.#buckets<Bucket & { requests: number; promptTokens: number; completionTokens: number }>(
      'consumption',
      'count() as requests, sum(prompt_tokens) as promptTokens, sum(completion_tokens) as completionTokens',
      scope,
      range,
    );
  }

  cost(scope: Scope, range: ReportRange) {
    return this.#buckets<Bucket & { requests: number; costMicros: number }>(
      'consumption',
      'count() as requests, sum(cost_micros) as costMicros',
      scope,
      range,
    );
  }

  async verdicts(scope: Scope, range: ReportRange) {
    const rows = await this.#buckets<Bucket & { allowed: number; denied: number; latency: Triple }>(
      'decision',
      `countIf(allow) as allowed, countIf(not allow) as denied, ${quantiles('latency_us / 1000')} as latency`,
      scope,
      range,
    );
    return rows.map(({ latency, ...row }) => ({ ...row, latencyMs: named(latency) }));
  }

  errors(scope: Scope, range: ReportRange) {
    return this.#buckets<Bucket & { errors: number }>('error', 'count() as errors', scope, range);
  }

  async success(scope: Scope, range: ReportRange) {
    const figures = ['completed', 'failed', 'cancelled'].map((each) => `countIf(status = '${each}') as ${each}`);
    const rows = await this.#buckets<Bucket & { completed: number; failed: number; cancelled: number }>(
      'turn_outcome',
      figures.join(', '),
      scope,
      range,
    );
    return rows.map((row) => ({ ...row, rate: rateOf(row) }));
  }

  /** The newest forecast of the hours to come. */
  forecast(scope: Scope, hours: number, now: Date) {
    const to = new Date(now.getTime() + hours * 3600_000);
    return this.#rows<Bucket & { expected: number; low: number; high: number; accuracy: number | null }>(
      `select toString(hour, 'UTC') as time, tenant as group, expected, low, high, accuracy from ${database}.forecast final
      where ${admitted} and ${within('toDateTime64(hour, 3)')} order by hour, tenant limit 10000`,
      scope,
      { from: seconds(now), to: seconds(to) },
    );
  }

  anomalies(scope: Scope, { from, to }: Pick<ReportRange, 'from' | 'to'>) {
    return this.#rows<Bucket & { tokens: number; expected: number; score: number }>(
      `select toString(hour, 'UTC') as time, tenant as group, tokens, expected, score from ${database}.anomaly final
      where ${admitted} and ${within('toDateTime64(hour, 3)')} order by hour, tenant limit 10000`,
      scope,
      { from: seconds(from), to: seconds(to) },
    );
  }

  /** @throws Problem when ClickHouse is away or has too much to do */
  async #rows<Found>(query: string, scope: Scope, parameters: Parameters): Promise<readonly Found[]> {
    // Twice: the statement admits the rows of the scope, and ClickHouse shows this user no others.
    const tenant = scope === 'all' ? '*' : scope.tenant;
    try {
      return await this.#warehouse.rows<Found>(query, { ...scopeParameters(scope), ...parameters }, tenant);
    } catch (error) {
      if (!isAway(error)) throw error;
      const headers = { 'retry-after': '2' };
      throw new Problem('unavailable', 'ClickHouse, where figures are kept, does not answer: try again', headers);
    }
  }

  #buckets<Found>(view: View, figures: string, scope: Scope, { from, to, step, by }: ReportRange) {
    return this.#rows<Found>(
      `select formatDateTime(toStartOfInterval(time, toIntervalSecond({step:UInt32})), '%FT%TZ', 'UTC') as time,
        toString(${columnOf(by)}) as group, ${figures}
      from ${database}.${view} as source
      where ${admitted} and ${within('source.time')}
      group by time, group order by time, group limit 10000`,
      scope,
      { from: seconds(from), to: seconds(to), step },
    );
  }
}

/** Codes of ClickHouse that say "not now": the time is over, too many queries, the network, memory. */
const passing = new Set(['159', '202', '209', '210', '241']);

/** What ClickHouse itself refuses has a code; without one there was no answer. */
const isAway = (error: unknown): boolean => !(error instanceof ClickHouseError) || passing.has(error.code);

type Triple = readonly [number | null, number | null, number | null];

const named = ([p50, p95, p99]: Triple) => ({ p50, p95, p99 });

const rateOf = ({ completed, failed }: { readonly completed: number; readonly failed: number }): number | null =>
  completed + failed === 0 ? null : completed / (completed + failed);
