import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '@somagent/kit';
import { retentionDays } from '../warehouse/migrations.ts';
import { database, type Row, type Warehouse } from '../warehouse/warehouse.ts';
import { folds, horizon, threshold } from './measure.ts';
import { askModel, type ModelProgram } from './model.ts';

const hourMs = 3600_000;

/** What a forecast of all tenants has made. */
export interface ForecastRun {
  readonly tenants: number;
  readonly hours: number;
  readonly anomalies: number;
  /** Tenants that are too young, and why. */
  readonly problems: Readonly<Record<string, string>>;
}

/** Tokens per hour of one tenant from its first whole hour to the last, without a gap. */
interface Series {
  readonly first: number;
  readonly values: number[];
}

const clock = (ms: number) => new Date(ms).toISOString().slice(0, 19).replace('T', ' ');

/** Tokens of each tenant by the hour; hours without any are 0. `end` is the beginning of the running hour. */
async function seriesOf(warehouse: Warehouse, end: number): Promise<ReadonlyMap<string, Series>> {
  const rows = await warehouse.rows<{ tenant: string; hour: number; tokens: number }>(
    `select tenant, intDiv(toUnixTimestamp(time), 3600) as hour, sum(prompt_tokens + completion_tokens) as tokens
    from ${database}.usage where tenant != '' and time >= toDateTime64({from:Int64}, 3) and time < toDateTime64({to:Int64}, 3)
    group by tenant, hour order by tenant, hour`,
    { from: (end - retentionDays * 24 * hourMs) / 1000, to: end / 1000 },
  );
  const last = end / hourMs - 1;
  return new Map(
    [...Map.groupBy(rows, ({ tenant }) => tenant)].map(([tenant, own]) => {
      const first = own[0]?.hour ?? last;
      const values = new Array<number>(last - first + 1).fill(0);
      for (const { hour, tokens } of own) values[hour - first] = tokens;
      return [tenant, { first, values }];
    }),
  );
}

/** Forecasts every tenant and names the odd hours of its last weeks; a repetition replaces what was there. */
export async function forecastAll(warehouse: Warehouse, program: ModelProgram, now = new Date()): Promise<ForecastRun> {
  const end = Math.floor(now.getTime() / hourMs) * hourMs;
  const series = await seriesOf(warehouse, end);
  const values = Object.fromEntries([...series].map(([tenant, { values }]) => [tenant, values]));
  const answers = await askModel(program, { horizon, folds, threshold, series: values });
  const made = now.toISOString().slice(0, 23).replace('T', ' ');
  const forecasts: Row[] = [];
  const anomalies: Row[] = [];
  const problems: Record<string, string> = {};
  for (const [tenant, answer] of Object.entries(answers)) {
    if ('problem' in answer) {
      problems[tenant] = answer.problem;
      continue;
    }
    const { accuracy } = answer;
    answer.forecast.forEach(([expected, low, high], index) => {
      forecasts.push({ tenant, hour: clock(end + index * hourMs), expected, low, high, accuracy, made });
    });
    const own = series.get(tenant);
    for (const [index, expected, score] of answer.anomalies) {
      const hour = clock(((own?.first ?? 0) + index) * hourMs);
      anomalies.push({ tenant, hour, tokens: own?.values[index] ?? 0, expected, score, made });
    }
  }
  if (forecasts.length > 0) await warehouse.insert('forecast', forecasts, `forecast/${end}/${now.getTime()}`);
  if (anomalies.length > 0) await warehouse.insert('anomaly', anomalies, `anomaly/${end}/${now.getTime()}`);
  return { tenants: series.size, hours: forecasts.length, anomalies: anomalies.length, problems };
}

/** Options of {@link forecastAgain}. */
export interface ForecastingOptions {
  readonly warehouse: Warehouse;
  readonly program: ModelProgram;
  readonly minutes: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Forecasts from time to time until `signal` is aborted. */
export async function forecastAgain({ warehouse, program, minutes, log, signal }: ForecastingOptions): Promise<void> {
  while (!signal.aborted) {
    await forecastAll(warehouse, program).then(
      (run) => log.info(run, 'token use was forecast'),
      (error: unknown) => log.warn({ err: error }, 'token use could not be forecast this time'),
    );
    await sleep(minutes * 60_000, undefined, { signal }).catch(() => undefined);
  }
}
