import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import fc from 'fast-check';
import { z } from 'zod';
import { incompatibilities } from './compatibility.ts';
import type { JsonSchema } from './json-schema.ts';

const render = (schema: z.ZodType): JsonSchema => z.toJSONSchema(schema, { target: 'draft-7', io: 'output' });
const before = z.object({ id: z.uuid(), size: z.int().min(0), kind: z.enum(['a', 'b']), note: z.string().nullable() });
const problems = (after: z.ZodType) => incompatibilities(render(before), render(after));

const compatible: Readonly<Record<string, z.ZodType>> = {
  'the same': before,
  'one more field that may be absent': before.extend({ more: z.string().optional() }),
  'one more alternative': before.extend({ kind: z.enum(['a', 'b', 'c']) }),
  'a wider bound': before.extend({ size: z.int().min(-5) }),
  'a number where a whole one was': before.extend({ size: z.number() }),
  'any value': before.extend({ note: z.unknown() }),
  'a field that may be absent now': before.extend({ note: z.string().nullable().optional() }),
};
for (const [name, after] of Object.entries(compatible)) {
  test(`compatible: ${name}`, () => assert.deepEqual(problems(after), []));
}

const incompatible: readonly (readonly [string, z.ZodType, RegExp])[] = [
  ['a new field that must be there', before.extend({ more: z.string() }), /^\$\.more: is required, it was not$/],
  ['a field that is gone', before.omit({ note: true }), /^\$\.note: is not allowed any more$/],
  ['another type', before.extend({ size: z.string() }), /^\$\.size: type is "string", it was "integer"$/],
  ['a value that is gone', before.extend({ kind: z.enum(['a']) }), /^\$\.kind: "b" is gone$/],
  ['a tighter bound', before.extend({ size: z.int().min(1) }), /^\$\.size: minimum is 1, it was 0$/],
  ['no null any more', before.extend({ note: z.string() }), /^\$\.note: type is "string", it was "null"$/],
  ['a pattern where none was', before.extend({ note: z.string().regex(/x/).nullable() }), /^\$\.note: no alternative/],
  ['another format', before.extend({ id: z.email() }), /^\$\.id: format is "email", it was "uuid"$/],
];
for (const [name, after, problem] of incompatible) {
  test(`refused: ${name}`, () => assert.match(problems(after)[0] ?? 'nothing was refused', problem));
}

const anySchema = fc.letrec<{ schema: z.ZodType }>((tie) => ({
  schema: fc.oneof(
    { maxDepth: 2 },
    fc.constant(z.null()),
    fc.constant(z.boolean()),
    fc.integer({ min: -2, max: 2 }).map((min) => z.int().min(min)),
    fc.integer({ min: 0, max: 2 }).map((max) => z.string().max(max)),
    fc.uniqueArray(fc.constantFrom('a', 'b', 'c'), { minLength: 1 }).map((values) => z.enum(values)),
    tie('schema').map((item) => z.array(item)),
    tie('schema').map((inner) => inner.nullable()),
    fc
      .dictionary(fc.constantFrom('p', 'q'), fc.tuple(tie('schema'), fc.boolean()))
      .map((shape) =>
        z.object(
          Object.fromEntries(
            Object.entries(shape).map(([key, [inner, optional]]) => [key, optional ? inner.optional() : inner]),
          ),
        ),
      ),
  ),
})).schema;

const anyDocument = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2 },
    fc.constantFrom(null, true, -2, -1, 0, 2, 'a', 'b', 'c', '', 'abc'),
    fc.array(tie('value'), { maxLength: 2 }),
    fc.dictionary(fc.constantFrom('p', 'q', 'r'), tie('value')),
  ),
})).value;

test('what is called compatible is so for a real validator, for generated schemas and documents', () => {
  const ajv = new Ajv({ strict: false });
  let compared = 0;
  fc.assert(
    fc.property(
      anySchema,
      anySchema,
      fc.array(anyDocument, { minLength: 40, maxLength: 40 }),
      (from, to, documents) => {
        const [previous, next] = [render(from), render(to)];
        if (incompatibilities(previous, next).length > 0) return;
        const [wasValid, isValid] = [ajv.compile(previous), ajv.compile(next)];
        for (const document of documents.filter((candidate) => wasValid(candidate))) {
          compared += 1;
          assert.equal(isValid(document), true, `${JSON.stringify(document)} was valid`);
        }
      },
    ),
    { numRuns: 1500 },
  );
  assert.ok(compared > 200, `only ${compared} documents were compared`);
});
