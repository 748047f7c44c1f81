/** What a service says of its routes: which identifiers can be put where, read from its OpenAPI document. */
import { randomUUID } from 'node:crypto';
import type { ProbeRoute } from './probe.ts';

/** As much of JSON Schema as our documents use; references are resolved by {@link routesOfDocument}. */
export interface Schema {
  readonly type?: string | readonly string[];
  readonly format?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly minItems?: number;
  readonly minimum?: number;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly $ref?: string;
}

/** A query parameter; `values` where only some are allowed. */
export interface QueryParameter {
  readonly name: string;
  readonly values: readonly string[];
}

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string; readonly schema?: Schema }[];
  readonly requestBody?: { readonly content?: Readonly<Record<string, { readonly schema?: Schema }>> };
}

/** An OpenAPI document, as far as it is read here. */
export interface ApiDocument {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> };
}

/** Every route of a document, with what can be asked and sent there. */
export function routesOfDocument({ paths, components }: ApiDocument): ProbeRoute[] {
  const schemas = components?.schemas ?? {};
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { parameters = [], requestBody }]) => {
      const schema = requestBody?.content?.['application/json']?.schema;
      const query = parameters
        .filter((parameter) => parameter.in === 'query')
        .map(({ name, schema: allowed }) => ({ name, values: (allowed?.enum ?? []).map(String) }));
      return { method: method.toUpperCase(), path, query, ...(schema && { body: resolved(schema, schemas) }) };
    }),
  );
}

/** A schema without references and unions: of several forms the first, as a caller may choose. */
function resolved(schema: Schema, schemas: Readonly<Record<string, Schema>>): Schema {
  const { $ref, anyOf, allOf, properties, items, ...rest } = schema;
  const target = $ref === undefined ? undefined : schemas[$ref.split('/').at(-1) ?? ''];
  if ($ref !== undefined && target === undefined) throw new Error(`the document has no schema ${$ref}`);
  const parts = [...(target ? [target] : []), ...(allOf ?? []), ...(anyOf?.slice(0, 1) ?? [])];
  const merged: Schema = Object.assign({}, ...parts.map((part) => resolved(part, schemas)));
  const own = Object.fromEntries(
    Object.entries(properties ?? {}).map(([name, each]) => [name, resolved(each, schemas)]),
  );
  return {
    ...merged,
    ...rest,
    ...((properties ?? merged.properties) && { properties: { ...merged.properties, ...own } }),
    ...(items && { items: resolved(items, schemas) }),
  };
}

/** The least that a schema accepts. */
export function exampleOf(schema: Schema): unknown {
  const { enum: values, properties = {}, required = [], items, minItems = 0, format, minimum = 1 } = schema;
  if (schema.const !== undefined) return schema.const;
  if (values !== undefined) return values[0];
  switch (Array.isArray(schema.type) ? schema.type[0] : schema.type) {
    case 'object':
      return Object.fromEntries(required.map((name) => [name, exampleOf(properties[name] ?? {})]));
    case 'array':
      return Array.from({ length: minItems }, () => exampleOf(items ?? {}));
    case 'integer':
    case 'number':
      return minimum;
    case 'boolean':
      return false;
    default:
      return format === 'uuid' ? randomUUID() : format === 'date-time' ? new Date().toISOString() : 'probe';
  }
}

/** A body that points at something of a victim. */
export interface PointingBody {
  /** Fields that do, e.g. `filter.owner`. */
  readonly fields: readonly string[];
  readonly body: unknown;
  readonly given: readonly string[];
}

/**
 * Bodies that a schema accepts and that have an identifier in every field that is named like one: each alone, and those
 * of one object together. @param identifiers by the name of the field that takes them
 */
export function pointingBodies(schema: Schema, identifiers: Readonly<Record<string, string>>): readonly PointingBody[] {
  const { properties = {} } = schema;
  const minimal = exampleOf({ type: 'object', ...schema }) as Record<string, unknown>;
  const here = Object.entries(properties).flatMap(([name, part]) => {
    const value = identifiers[name];
    if (value === undefined || part.properties !== undefined || part.enum !== undefined) return [];
    return [{ name, value, put: part.items === undefined ? value : [value] }];
  });
  const within = Object.entries(properties).flatMap(([name, part]) =>
    part.properties === undefined
      ? []
      : pointingBodies(part, identifiers).map(({ fields, body, given }) => ({
          fields: fields.map((field) => `${name}.${field}`),
          body: { ...minimal, [name]: body },
          given,
        })),
  );
  const together = {
    fields: here.map(({ name }) => name),
    body: { ...minimal, ...Object.fromEntries(here.map(({ name, put }) => [name, put])) },
    given: here.map(({ value }) => value),
  };
  const singles = here.map(({ name, value, put }) => ({
    fields: [name],
    body: { ...minimal, [name]: put },
    given: [value],
  }));
  return [...singles, ...within, ...(here.length > 1 ? [together] : [])];
}
