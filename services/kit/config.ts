import { z } from 'zod';

/** A configuration that a person has to mend: each line of the message names the variable and the fix. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`Configuration is not usable:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** The environment of a process, or a part of it. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the variables that `schema` names from the environment. The description of a field (`.describe()`) is the
 * fix that the error shows. An empty variable counts as absent.
 * @throws ConfigError naming every variable that is missing or wrong, all at once.
 */
export function readConfig<Shape extends z.ZodRawShape>(
  schema: z.ZodObject<Shape>,
  environment: Environment = process.env,
): z.output<z.ZodObject<Shape>> {
  const values = Object.fromEntries(Object.keys(schema.shape).map((name) => [name, environment[name] || undefined]));
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  throw new ConfigError(result.error.issues.map((issue) => describeIssue(schema.shape, issue, values)));
}

function describeIssue(shape: z.ZodRawShape, issue: z.core.$ZodIssue, values: Environment): string {
  const name = String(issue.path[0]);
  const fix = descriptionOf(shape[name]) ?? 'a value that the README of the service names';
  const value = values[name];
  const state = value === undefined ? 'is not set' : `is ${JSON.stringify(value)}: ${issue.message}`;
  return `${name} ${state}. Set it to ${fix}.`;
}

/** The description of a field; a default or an optional wraps the field that carries it. */
function descriptionOf(field: unknown): string | undefined {
  if (!(field instanceof z.ZodType)) return undefined;
  if (field.description !== undefined) return field.description;
  return field instanceof z.ZodDefault || field instanceof z.ZodOptional ? descriptionOf(field.unwrap()) : undefined;
}

/** A TCP port from a variable. */
export const port = (description: string) => z.coerce.number().int().min(1).max(65535).describe(description);

/** A positive whole number from a variable. */
export const count = (description: string) => z.coerce.number().int().positive().describe(description);

/** A non-empty text from a variable. */
export const text = (description: string) => z.string().min(1).describe(description);

/** An https address from a variable: an unencrypted one is refused. */
export const httpsUrl = (description: string) =>
  z
    .url({ protocol: /^https$/ })
    .transform((value) => value.replace(/\/$/, ''))
    .describe(description);
