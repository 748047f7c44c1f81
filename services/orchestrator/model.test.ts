import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { isPermanent, isTooLong, messagesOf, newerHalf } from './model.ts';

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

for (const [status, permanent] of [
  [400, true],
  [401, true],
  [404, true],
  [422, true],
  [408, false],
  [429, false],
  [500, false],
  [503, false],
] as const) {
  test(`an answer of ${status} is ${permanent ? 'final' : 'worth a retry'}`, () => {
    assert.equal(isPermanent(new OpenAI.APIError(status, {}, 'refused', new Headers())), permanent);
  });
}

test('a lost connection is worth a retry', () => {
  assert.equal(isPermanent(new OpenAI.APIConnectionError({})), false);
});

test('a conversation that is too long is told apart, and its older half goes first', () => {
  const body = { code: 'context_length_exceeded', message: 'too long' };
  assert.equal(isTooLong(new OpenAI.APIError(400, body, 'too long', new Headers())), true);
  assert.equal(isTooLong(new OpenAI.APIError(400, { code: 'other' }, 'no', new Headers())), false);
  assert.deepEqual(newerHalf([1, 2, 3]), [3]);
  assert.deepEqual(newerHalf([1, 2]), [2]);
  assert.deepEqual(newerHalf([1]), []);
});
