import { isDeepStrictEqual } from 'node:util';
import type { JsonSchema } from './json-schema.ts';

/** Keywords that say nothing about what is valid. */
const annotations = new Set(['$schema', 'title', 'description', 'default', 'examples']);
/** Bounds that may only fall, and bounds that may only rise. */
const lowerBounds = ['minimum', 'exclusiveMinimum', 'minLength', 'minItems', 'minProperties'];
const upperBounds = ['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems', 'maxProperties'];
const structure = ['type', 'const', 'enum', 'anyOf', 'properties', 'required', 'additionalProperties', 'items'];
/** Keywords that bind values of one type only. */
const bound: Readonly<Record<string, readonly string[]>> = {
  string: ['minLength', 'maxLength', 'pattern', 'format', 'contentEncoding', 'contentMediaType'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  array: ['items', 'minItems', 'maxItems', 'uniqueItems'],
  object: ['properties', 'required', 'additionalProperties', 'propertyNames', 'minProperties', 'maxProperties'],
};
const understood = new Set([...annotations, ...lowerBounds, ...upperBounds, ...structure]);

const schemaAt = (value: unknown): JsonSchema => (value === undefined || value === true ? {} : (value as JsonSchema));
const listAt = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const mapAt = (value: unknown): Readonly<Record<string, JsonSchema>> => (value ?? {}) as Record<string, JsonSchema>;
const constraints = (schema: JsonSchema) => Object.keys(schema).filter((keyword) => !annotations.has(keyword));
const valuesOf = (schema: JsonSchema) => ('const' in schema ? [schema.const] : (schema.enum as unknown[] | undefined));

/**
 * Why a reader of `next` could refuse what was written under `previous`: compatibility BACKWARD of the registry.
 * It is on the safe side: what it can't show to be compatible, it names.
 * @returns one line per problem, each with its place; empty when every document of `previous` is valid under `next`.
 */
export function incompatibilities(previous: JsonSchema, next: JsonSchema, place = '$'): readonly string[] {
  if (isDeepStrictEqual(previous, next) || constraints(next).length === 0) return [];
  if (previous.anyOf !== undefined) {
    return listAt(previous.anyOf).flatMap((branch) => incompatibilities(schemaAt(branch), next, place));
  }
  if (Array.isArray(previous.type)) {
    return previous.type.flatMap((type) => incompatibilities({ ...previous, type }, next, place));
  }
  if (next.anyOf !== undefined) return noBranch(previous, next, place);
  return problemsOf(ofType(previous, previous.type), ofType(next, previous.type), place);
}

/** The schema without what can't matter to values of `type`. */
function ofType(schema: JsonSchema, type: unknown): JsonSchema {
  if (typeof type !== 'string') return schema;
  const own = type === 'integer' ? 'number' : type;
  const foreign = new Set(Object.entries(bound).flatMap(([other, keywords]) => (other === own ? [] : keywords)));
  return Object.fromEntries(Object.entries(schema).filter(([keyword]) => !foreign.has(keyword)));
}

const problemsOf = (previous: JsonSchema, next: JsonSchema, place: string): readonly string[] => [
  ...unknownKeywords(previous, next, place),
  ...typeProblems(previous, next, place),
  ...valueProblems(previous, next, place),
  ...boundProblems(previous, next, place),
  ...arrayProblems(previous, next, place),
  ...objectProblems(previous, next, place),
];

function noBranch(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  const branches = listAt(next.anyOf).map((branch) => incompatibilities(previous, schemaAt(branch), place));
  return branches.some((problems) => problems.length === 0) ? [] : [`${place}: no alternative accepts it any more`];
}

/** A keyword that is not understood (pattern, format, propertyNames ...) may only stay as it was, or go. */
function unknownKeywords(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  return constraints(next)
    .filter((keyword) => !understood.has(keyword) && !isDeepStrictEqual(previous[keyword], next[keyword]))
    .map((keyword) => `${place}: ${keyword} is ${JSON.stringify(next[keyword])}, it was ${show(previous[keyword])}`);
}

function typeProblems(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  const from = previous.type;
  const to = next.type;
  const allowed = Array.isArray(to) ? to : [to];
  if (to === undefined || allowed.includes(from) || (from === 'integer' && allowed.includes('number'))) return [];
  return [`${place}: type is ${show(to)}, it was ${show(from)}`];
}

function valueProblems(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  const allowed = valuesOf(next);
  if (allowed === undefined) return [];
  const written = valuesOf(previous);
  if (written === undefined) return [`${place}: only ${show(allowed)} is allowed, it was open`];
  return written.filter((value) => !allowed.includes(value)).map((value) => `${place}: ${show(value)} is gone`);
}

function boundProblems(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  const tighter = (keyword: string, isTighter: (from: number, to: number) => boolean) => {
    const to = next[keyword] as number | undefined;
    const from = previous[keyword] as number | undefined;
    return to !== undefined && (from === undefined || isTighter(from, to));
  };
  return [
    ...lowerBounds.filter((keyword) => tighter(keyword, (from, to) => to > from)),
    ...upperBounds.filter((keyword) => tighter(keyword, (from, to) => to < from)),
  ].map((keyword) => `${place}: ${keyword} is ${show(next[keyword])}, it was ${show(previous[keyword])}`);
}

function arrayProblems(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  if (next.items === undefined) return [];
  return incompatibilities(schemaAt(previous.items), schemaAt(next.items), `${place}[]`);
}

function objectProblems(previous: JsonSchema, next: JsonSchema, place: string): readonly string[] {
  const before = mapAt(previous.properties);
  const after = mapAt(next.properties);
  const wasRequired = new Set(listAt(previous.required));
  const required = listAt(next.required).filter((name) => !wasRequired.has(name));
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [
    ...required.map((name) => `${place}.${String(name)}: is required, it was not`),
    ...[...names].flatMap((name) =>
      propertyProblems(before[name] ?? others(previous), after[name] ?? others(next), `${place}.${name}`),
    ),
    ...propertyProblems(others(previous), others(next), `${place}.*`),
  ];
}

/** The schema of properties that are not listed; `false` admits none. */
const others = (schema: JsonSchema): JsonSchema | false =>
  schema.additionalProperties === false ? false : schemaAt(schema.additionalProperties);

function propertyProblems(previous: JsonSchema | false, next: JsonSchema | false, place: string): readonly string[] {
  if (previous === false) return [];
  if (next === false) return [`${place}: is not allowed any more`];
  return incompatibilities(previous, next, place);
}

const show = (value: unknown): string => (value === undefined ? 'not there' : JSON.stringify(value));
