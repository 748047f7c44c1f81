import { isDeepStrictEqual } from 'node:util';
import { incompatibilities } from './compatibility.ts';
import type { CurrentSchema, JsonSchema } from './json-schema.ts';

/** Every schema that was ever in use, by subject, oldest first: number 1 is the first. */
export type SchemaHistory = Readonly<Record<string, readonly JsonSchema[]>>;

/** The history with what the code has now, and what forbids it. */
export interface HistoryUpdate {
  readonly history: SchemaHistory;
  /** One line per problem, with the fix. */
  readonly problems: readonly string[];
}

/**
 * Compares what the code has with what was in use.
 * @param replaceNewest the newest versions were never released: they are replaced instead of followed by another
 */
export function updateHistory(
  history: SchemaHistory,
  current: readonly CurrentSchema[],
  replaceNewest = false,
): HistoryUpdate {
  const entries = current.map((schema) => [schema, versionsOf(history, schema, replaceNewest)] as const);
  const subjects = new Set(current.map(({ subject }) => subject));
  const gone = Object.keys(history).filter((subject) => !subjects.has(subject));
  return {
    history: Object.fromEntries(entries.map(([{ subject }, versions]) => [subject, versions])),
    problems: [
      ...(replaceNewest
        ? []
        : gone.map((subject) => `${subject}: is gone; events of it are still in Kafka, keep its contract`)),
      ...entries.flatMap(([schema, versions]) => problemsOf(schema, versions)),
    ],
  };
}

function versionsOf(history: SchemaHistory, current: CurrentSchema, replaceNewest: boolean): readonly JsonSchema[] {
  const versions = history[current.subject] ?? [];
  if (isDeepStrictEqual(versions.at(-1), current.schema)) return versions;
  return [...(replaceNewest ? versions.slice(0, -1) : versions), current.schema];
}

function problemsOf({ subject, version }: CurrentSchema, versions: readonly JsonSchema[]): readonly string[] {
  const wrong =
    version === versions.length ? [] : [`${subject}: set its version to ${versions.length}, it is ${version}`];
  const [previous, newest] = versions.slice(-2);
  if (previous === undefined || newest === undefined) return wrong;
  return [...wrong, ...incompatibilities(previous, newest).map((problem) => `${subject} ${problem}`)];
}
