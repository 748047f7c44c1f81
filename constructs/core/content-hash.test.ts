import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { contentHash } from './content-hash.ts';

test('the order of keys does not matter, any value does', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (object) => {
      const reversed = Object.fromEntries(Object.entries(object).reverse());
      assert.equal(contentHash(reversed), contentHash(object));
      assert.notEqual(contentHash([object, 1]), contentHash([object, 2]));
    }),
  );
  assert.notEqual(contentHash([1, 2]), contentHash([2, 1]));
});

test('it is ten hexadecimal digits', () => assert.match(contentHash({ a: 1 }), /^[0-9a-f]{10}$/));
