import { readFile } from 'node:fs/promises';
import { z } from 'zod';

const tenant = z.object({
  name: z.string().min(1),
  /** Tokens per hour on average. */
  base: z.number().positive(),
  /** Factor of each hour of a day. */
  daily: z.array(z.number().positive()).length(24),
  /** Factor of each day of a week. */
  weekly: z.array(z.number().positive()).length(7),
  /** Growth per day: 0.01 is one percent. */
  trendPerDay: z.number(),
  /** Standard deviation of the logarithm of each hour. */
  noise: z.number().min(0),
});

const profile = z.object({
  description: z.string(),
  days: z.int().min(21),
  tenants: z.array(tenant).min(1),
  anomalies: z.object({
    perTenant: z.int().min(1),
    lengthHours: z.tuple([z.int().min(1), z.int().min(1)]),
    factors: z.array(z.number().positive()).min(1),
  }),
});

/** How much tenants use, hour by hour; `profiles/`. */
export type LoadProfile = z.output<typeof profile>;
/** One tenant of it. */
export type TenantProfile = LoadProfile['tenants'][number];

/** @throws Error that names each wrong field. */
export const readProfile = async (file: string | URL): Promise<LoadProfile> =>
  profile.parse(JSON.parse(await readFile(file, 'utf8')));

/** Numbers in [0, 1) that come again with the same seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Normally distributed, mean 0 and deviation 1 (Box and Muller). */
const normal = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** Tokens of each hour, beginning with a Monday. */
export function trace(tenant: TenantProfile, days: number, random: () => number): number[] {
  return Array.from({ length: days * 24 }, (_, hour) => {
    const day = Math.floor(hour / 24);
    const season = (tenant.daily[hour % 24] ?? 1) * (tenant.weekly[day % 7] ?? 1);
    const growth = (1 + tenant.trendPerDay) ** (hour / 24);
    return Math.round(tenant.base * season * growth * Math.exp(tenant.noise * normal(random)));
  });
}

/** Hours of a trace that were changed. */
export interface Planted {
  readonly values: readonly number[];
  readonly hours: ReadonlySet<number>;
}

/** Multiplies stretches of a trace by factors, none within a day of another. */
export function plant(values: readonly number[], how: LoadProfile['anomalies'], random: () => number): Planted {
  const changed = [...values];
  const hours = new Set<number>();
  const [shortest, longest] = how.lengthHours;
  const stretch = Math.floor(values.length / how.perTenant);
  for (let index = 0; index < how.perTenant; index += 1) {
    const length = shortest + Math.floor(random() * (longest - shortest + 1));
    const start = index * stretch + 24 + Math.floor(random() * (stretch - 48 - length));
    const factor = how.factors[Math.floor(random() * how.factors.length)] ?? 2;
    for (let hour = start; hour < start + length; hour += 1) {
      changed[hour] = Math.round((values[hour] ?? 0) * factor);
      hours.add(hour);
    }
  }
  return { values: changed, hours };
}
