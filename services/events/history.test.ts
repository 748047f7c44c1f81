import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { updateHistory } from './history.ts';
import { currentSchemas, type JsonSchema } from './json-schema.ts';
import history from './schemas.json' with { type: 'json' };

const committed: Readonly<Record<string, readonly JsonSchema[]>> = history;

test('the committed schemas are those of the contracts', () => {
  const update = updateHistory(committed, currentSchemas());
  assert.deepEqual(update.problems, []);
  assert.deepEqual(update.history, committed, 'run: node services/events/main.ts');
});

test('every version is compatible with the one before it', () => {
  for (const [subject, versions] of Object.entries(committed)) {
    versions.forEach((schema, index) => {
      const update = updateHistory({ [subject]: versions.slice(0, index) }, [{ subject, version: index + 1, schema }]);
      assert.deepEqual(update.problems, []);
    });
  }
});

const render = (shape: z.ZodRawShape): JsonSchema => z.toJSONSchema(z.object(shape), { target: 'draft-7' });
const first = render({ id: z.string() });

test('an incompatible change of a real contract is refused, field and all', () => {
  const [changed, ...others] = currentSchemas();
  assert.ok(changed);
  const required = [...(changed.schema.required as string[]), 'planted'];
  const planted = { ...changed, version: 2, schema: { ...changed.schema, required } };
  assert.deepEqual(updateHistory(committed, [planted, ...others]).problems, [
    `${changed.subject} $.planted: is required, it was not`,
  ]);
});

test('a compatible change asks for the next version', () => {
  const schema = render({ id: z.string(), note: z.string().optional() });
  const stale = updateHistory({ a: [first] }, [{ subject: 'a', version: 1, schema }]);
  assert.deepEqual(stale.problems, ['a: set its version to 2, it is 1']);
  const raised = updateHistory({ a: [first] }, [{ subject: 'a', version: 2, schema }]);
  assert.deepEqual(raised, { history: { a: [first, schema] }, problems: [] });
});

test('a type that is gone is named', () => {
  assert.deepEqual(updateHistory({ a: [first] }, []).problems, [
    'a: is gone; events of it are still in Kafka, keep its contract',
  ]);
});
