import { z } from 'zod';

const share = z.number().min(0).max(1);
// Null: the loss was no number. It never passes.
const loss = z.number().nonnegative().nullable();

/** What the job measures of a model. Losses in nats per token of the answers; shares of checks that it met. */
export const measuresSchema = z.object({
  /** On approved turns that it was not trained on. */
  heldOutLoss: loss,
  /** On the corpus that the serving model knows. */
  retentionLoss: loss,
  /** Questions of the corpus that are answered word for word. */
  answers: share,
  /** Answers that end by themselves and show no token of the chat format. */
  format: share,
  /** Answers under a JSON schema that are whole and keep it. */
  json: share,
  /** Calls of tools that are whole and keep the tool's schema. */
  tools: share,
});

/** Values of {@link measuresSchema}. */
export type Measures = z.output<typeof measuresSchema>;

/** How much worse than the serving model a new one may be. */
export interface Thresholds {
  /** Least fall of the held-out loss, as a share of the serving model's: a model that learned nothing stays away. */
  readonly gain: number;
  /** Most rise of the retention loss, nats per token. */
  readonly forgotten: number;
  /** Most fall of the share of exact answers. */
  readonly answers: number;
  /** Most fall of each other share. */
  readonly forms: number;
}

/** What holds where nothing else is configured. */
export const defaultThresholds: Thresholds = { gain: 0.05, forgotten: 0.1, answers: 0.15, forms: 0 };

/** Whether a model may serve. */
export interface GateVerdict {
  readonly passed: boolean;
  /** Each rule that it broke, with both figures. */
  readonly problems: readonly string[];
  readonly candidate: Measures;
  readonly serving: Measures;
}

/** Compares a new model with the one that serves, both measured in the same run on the same data. */
export function judge(candidate: Measures, serving: Measures, thresholds: Thresholds = defaultThresholds): GateVerdict {
  const problems = [
    ...lossProblem('held-out loss', candidate.heldOutLoss, (serving.heldOutLoss ?? 0) * (1 - thresholds.gain)),
    ...lossProblem('retention loss', candidate.retentionLoss, (serving.retentionLoss ?? 0) + thresholds.forgotten),
    ...shareProblem('exact answers', candidate.answers, serving.answers - thresholds.answers),
    ...shareProblem('plain answers', candidate.format, serving.format - thresholds.forms),
    ...shareProblem('JSON conformity', candidate.json, serving.json - thresholds.forms),
    ...shareProblem('tool conformity', candidate.tools, serving.tools - thresholds.forms),
  ];
  return { passed: problems.length === 0, problems, candidate, serving };
}

function lossProblem(name: string, value: number | null, most: number): string[] {
  if (value === null) return [`${name} is no number`];
  return value <= most ? [] : [`${name} is ${value.toFixed(3)}, at most ${most.toFixed(3)} is allowed`];
}

/** A rounding error is no regression. */
const tolerance = 1e-9;

function shareProblem(name: string, value: number, least: number): string[] {
  if (value >= least - tolerance) return [];
  return [`${name}: ${value.toFixed(3)}, at least ${least.toFixed(3)} is needed`];
}
