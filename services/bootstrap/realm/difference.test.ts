import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { differences } from './difference.ts';

describe('differences', () => {
  it('looks at the wished fields only and names each that differs, before and after', () => {
    assert.deepEqual(differences({ a: 1, b: { c: 'x' } }, { a: 1, b: { c: 'x', d: 2 }, e: 3 }), []);
    assert.deepEqual(differences({ a: 1, b: { c: 'x' } }, { a: 2, b: { c: 'y' } }), [
      { field: 'a', before: 2, after: 1 },
      { field: 'b.c', before: 'y', after: 'x' },
    ]);
    assert.deepEqual(differences({ a: 1 }, { a: '1' }), [{ field: 'a', before: '1', after: 1 }]);
    assert.deepEqual(differences({ a: { b: 1 } }, {}), [{ field: 'a.b', before: null, after: 1 }]);
    assert.deepEqual(differences({ a: {} }, {}), []);
  });

  it('compares a list as a whole', () => {
    assert.deepEqual(differences({ a: [1, 2] }, { a: [1] }), [{ field: 'a', before: [1], after: [1, 2] }]);
    assert.deepEqual(differences({ a: [{ b: 1 }] }, { a: [{ b: 1, c: 2 }] }), []);
  });

  it('never shows a secret', () => {
    assert.deepEqual(differences({ secret: 'new' }, { secret: 'old' }), [
      { field: 'secret', before: '(secret)', after: '(secret)' },
    ]);
    assert.deepEqual(differences({ secret: 'new' }, {}), [{ field: 'secret', before: null, after: '(secret)' }]);
  });

  it('finds none between a value and itself, and one in each changed value', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => assert.deepEqual(differences(value, structuredClone(value)), [])));
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.integer(), { minKeys: 1 }), (wish) => {
        const [key = ''] = Object.keys(wish);
        const entries = Object.entries(wish).map(([name, value]) => [name, name === key ? value + 1 : value]);
        assert.equal(differences(wish, Object.fromEntries(entries)).length, 1);
      }),
    );
  });
});
