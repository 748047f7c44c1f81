import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { z } from 'zod';

const answer = z.union([
  z.object({
    /** Expected, low and high tokens of each hour that comes. */
    forecast: z.array(z.tuple([z.number(), z.number(), z.number()])),
    /** 1 − WAPE of the back-test; null where the series is too short for one. */
    accuracy: z.number().nullable(),
    /** Index of the hour, expected tokens, deviations that it is off. */
    anomalies: z.array(z.tuple([z.int(), z.number(), z.number()])),
  }),
  z.object({ problem: z.string() }),
]);

/** What the model says of one series. */
export type ModelAnswer = z.output<typeof answer>;

/** What the model is asked. */
export interface ModelQuestion {
  /** Hours to forecast; of each fold of the back-test too. */
  readonly horizon: number;
  /** Origins of the back-test. */
  readonly folds: number;
  /** Deviations from which an hour is an anomaly. */
  readonly threshold: number;
  /** Tokens per hour, without a gap, by name. */
  readonly series: Readonly<Record<string, readonly number[]>>;
}

/** Where the model is. */
export interface ModelProgram {
  readonly python: string;
  /** `forecast/model.py`. */
  readonly program: string;
}

/** Runs the model in a process of its own: its memory is given back, and a crash is not ours. @throws Error */
export async function askModel(
  { python, program }: ModelProgram,
  question: ModelQuestion,
  signal?: AbortSignal,
): Promise<Readonly<Record<string, ModelAnswer>>> {
  const child = spawn(python, [program], { stdio: ['pipe', 'pipe', 'pipe'], ...(signal && { signal }) });
  const ended = new Promise<number | null>((resolve, reject) => child.once('close', resolve).once('error', reject));
  child.stdin.on('error', () => undefined).end(JSON.stringify(question));
  const [output, complaints, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  if (code !== 0) throw new Error(`${python} ${program} ended with ${code}: ${complaints.slice(-1000)}`);
  return z.record(z.string(), answer).parse(JSON.parse(output));
}
