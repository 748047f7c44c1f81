import { askModel, type ModelProgram } from './model.ts';
import { type LoadProfile, plant, randomNumbers, trace } from './profile.ts';

/** The forecast of the service: two days ahead, five origins, and what counts as an anomaly. */
export const horizon = 48;
export const folds = 5;
export const threshold = 4.5;

/** How well the model does on one synthetic trace. */
export interface Measured {
  readonly tenant: string;
  /** 1 − WAPE, rolling origin. */
  readonly accuracy: number;
  /** Of the hours that were named, the share that was planted. */
  readonly precision: number;
  /** Of the hours that were planted, the share that was named. */
  readonly recall: number;
  readonly planted: number;
}

/**
 * Makes the traces of a profile, forecasts them, and looks for what was planted in them.
 * @param origins how many beginnings the back-test forecasts from
 */
export async function measure(
  program: ModelProgram,
  profile: LoadProfile,
  seed: number,
  origins = folds,
): Promise<readonly Measured[]> {
  const random = randomNumbers(seed);
  const clean = Object.fromEntries(profile.tenants.map((tenant) => [tenant.name, trace(tenant, profile.days, random)]));
  const odd = new Map(
    Object.entries(clean).map(([name, values]) => [name, plant(values, profile.anomalies, random)] as const),
  );
  const forecasts = await askModel(program, { horizon, folds: origins, threshold, series: clean });
  const found = await askModel(program, {
    ...{ horizon, folds: 0, threshold },
    series: Object.fromEntries([...odd].map(([name, { values }]) => [name, values])),
  });
  return [...odd].map(([tenant, { hours }]) => {
    const [forecast, search] = [forecasts[tenant], found[tenant]];
    if (!forecast || 'problem' in forecast || !search || 'problem' in search)
      throw new Error(`no answer for ${tenant}`);
    const hits = search.anomalies.filter(([hour]) => hours.has(hour)).length;
    return {
      tenant,
      accuracy: forecast.accuracy ?? 0,
      precision: search.anomalies.length === 0 ? 0 : hits / search.anomalies.length,
      recall: hits / hours.size,
      planted: hours.size,
    };
  });
}
