import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelError } from '@somagent/models';
import { isPermanent, messagesOf, newerHalf } from './model.ts';

test('the conversation is persona, earlier turns, prompt', () => {
  const request = { persona: 'Be brief.', history: [{ prompt: 'a?', answer: 'a.' }], prompt: 'b?' };
  assert.deepEqual(messagesOf(request), [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'a?' },
    { role: 'assistant', content: 'a.' },
    { role: 'user', content: 'b?' },
  ]);
  assert.deepEqual(messagesOf({ persona: undefined, history: [], prompt: 'b?' }), [{ role: 'user', content: 'b?' }]);
});

for (const [code, permanent] of [
  ['invalid_request', true],
  ['unauthorized', true],
  ['context_length_exceeded', true],
  ['budget_exceeded', true],
  ['rate_limited', false],
  ['overloaded', false],
  ['unavailable', false],
  ['broken_off', false],
  ['exhausted', false],
] as const) {
  test(`a model that answers ${code} is ${permanent ? 'final' : 'worth a retry'}`, () => {
    assert.equal(isPermanent(new ModelError(code, 'refused')), permanent);
  });
}

test('an error of our own is worth a retry', () => assert.equal(isPermanent(new Error('lost')), false));

test('of a conversation that is too long the older half goes first', () => {
  assert.deepEqual(newerHalf([1, 2, 3]), [3]);
  assert.deepEqual(newerHalf([1, 2]), [2]);
  assert.deepEqual(newerHalf([1]), []);
});
