import { z } from 'zod';

/** What decides a tuned model apart from base, data and code; the limits keep a run within minutes. */
export const recipeSchema = z.strictObject({
  seed: z.int().min(0).max(2_147_483_647).default(20_250_101),
  steps: z.int().min(1).max(2000).default(80),
  rows: z.int().min(1).max(32).default(4),
  /** Highest rate of learning. */
  rate: z.number().positive().max(0.1).default(5e-4),
  /** How often each approved turn is seen for each time that the base corpus is. */
  copies: z.int().min(1).max(100).default(3),
});

/** Values of {@link recipeSchema}. */
export type Recipe = z.output<typeof recipeSchema>;
