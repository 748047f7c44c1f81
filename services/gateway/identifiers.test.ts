import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeCursor, encodeCursor, identifierFor } from './identifiers.ts';

const uuid8 = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test('the same scope and key give the same id, and any other another', () => {
  const id = identifierFor('k', 'acme', 'anna');
  assert.match(id, uuid8);
  assert.equal(identifierFor('k', 'acme', 'anna'), id);
  assert.notEqual(identifierFor('k', 'globex', 'anna'), id);
  assert.notEqual(identifierFor('k2', 'acme', 'anna'), id);
  assert.notEqual(identifierFor('ak', 'cme', 'anna'), id, 'boundaries between the parts count');
  assert.notEqual(identifierFor(undefined, 'acme'), identifierFor(undefined, 'acme'));
});

test('a cursor survives the way to the client and back', () => {
  const max = new Date('2200-01-01');
  fc.assert(
    fc.property(fc.date({ min: new Date(0), max, noInvalidDate: true }), fc.uuid(), (createdAt, id) => {
      assert.deepEqual(decodeCursor(encodeCursor({ createdAt, id })), { createdAt, id });
    }),
  );
});

test('what is not a cursor is told so', () => {
  for (const text of ['', 'x', Buffer.from('yesterday 1').toString('base64url')])
    assert.equal(decodeCursor(text), undefined);
});
