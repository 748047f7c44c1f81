import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { costOf, promptBound } from './cost.ts';
import { failureOf, retryAfterOf } from './failures.ts';
import { Allowance, LatencyWindow } from './latency.ts';

test('a cost is the price of its tokens, rounded up to a whole micro', () => {
  const tokens = fc.nat(10_000_000);
  const price = fc.nat(100_000_000);
  fc.assert(
    fc.property(tokens, tokens, price, price, (promptTokens, completionTokens, prompt, completion) => {
      const exact = BigInt(promptTokens) * BigInt(prompt) + BigInt(completionTokens) * BigInt(completion);
      const cost = costOf({ promptTokens, completionTokens }, { prompt, completion });
      assert.equal(BigInt(cost), (exact + 999_999n) / 1_000_000n);
    }),
  );
  assert.equal(
    costOf({ promptTokens: 1000, completionTokens: 500 }, { prompt: 3_000_000, completion: 15_000_000 }),
    10_500,
  );
});

test('the bound of a prompt is at least its bytes, also of what is in no message', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string(), (content, name) => {
      const tools = [{ type: 'function' as const, function: { name } }];
      const bound = promptBound({ model: 'm', messages: [{ role: 'user', content }], tools });
      assert.ok(bound >= Buffer.byteLength(content) + Buffer.byteLength(name));
    }),
  );
});

test('a quantile is a measurement of the window, and at least that share is not above it', () => {
  const samples = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(samples, fc.double({ min: 0.01, max: 1, noNaN: true }), (values, share) => {
      const window = new LatencyWindow(20);
      for (const value of values) window.add(value);
      const kept = values.slice(-20);
      const quantile = window.quantile(share);
      assert.ok(quantile !== undefined && kept.includes(quantile));
      assert.ok(kept.filter((value) => value <= quantile).length >= share * kept.length);
      assert.ok(kept.filter((value) => value < quantile).length < share * kept.length);
    }),
  );
  assert.equal(new LatencyWindow().quantile(0.95), undefined);
});

test('no order of requests lets more than the share pass, and what may pass does', () => {
  const orders = fc.array(fc.boolean(), { maxLength: 400 });
  fc.assert(
    fc.property(orders, fc.double({ min: 0.01, max: 0.5, noNaN: true }), (wishes, share) => {
      const allowance = new Allowance(share, 2);
      let passed = 0;
      for (const wish of wishes) {
        allowance.earn();
        if (wish && allowance.take()) passed += 1;
      }
      assert.ok(passed <= 2 + share * wishes.length + 1e-9, `${passed} of ${wishes.length}`);
      if (wishes.includes(true)) assert.ok(passed >= 1);
    }),
  );
});

const kinds: readonly (readonly [number | undefined, string | null, string, string])[] = [
  [400, 'context_length_exceeded', 'too long', 'context_length_exceeded'],
  [400, 'exceed_context_size_error', 'too long', 'context_length_exceeded'],
  [400, 'invalid_request_error', 'prompt is too long: 210000 tokens > 200000 maximum', 'context_length_exceeded'],
  [400, 'invalid_request_error', 'max_tokens: must be positive', 'invalid_request'],
  [401, 'authentication_error', 'no', 'unauthorized'],
  [403, null, 'no', 'unauthorized'],
  [404, null, 'no', 'model_not_found'],
  [413, 'request_too_large', 'no', 'context_length_exceeded'],
  [422, null, 'no', 'invalid_request'],
  [408, null, 'no', 'timeout'],
  [429, 'rate_limit_error', 'slow down', 'rate_limited'],
  [500, 'api_error', 'prompt is too long', 'overloaded'],
  [529, 'overloaded_error', 'Overloaded', 'overloaded'],
  [undefined, 'overloaded_error', 'Overloaded', 'overloaded'],
  [undefined, null, 'reset', 'unavailable'],
];

for (const [status, kind, message, code] of kinds) {
  test(`${status ?? 'no status'} ${kind ?? ''} "${message}" is ${code}`, () => {
    const error = failureOf('p', { status, kinds: [kind], message, headers: undefined, cause: undefined });
    assert.equal(error.code, code);
    assert.equal(error.message, `p: ${message}`);
  });
}

test('the time to come again is read in each of its forms', () => {
  const now = Date.parse('2026-11-23T12:00:00Z');
  const of = (headers: Record<string, string>) => retryAfterOf(new Headers(headers), now);
  assert.equal(of({ 'retry-after': '2' }), 2000);
  assert.equal(of({ 'retry-after': '0.5' }), 500);
  assert.equal(of({ 'retry-after': 'Mon, 23 Nov 2026 12:00:07 GMT' }), 7000);
  assert.equal(of({ 'retry-after': 'Mon, 23 Nov 2026 11:00:00 GMT' }), 0);
  assert.equal(of({ 'retry-after-ms': '250', 'retry-after': '9' }), 250);
  assert.equal(of({ 'retry-after': 'soon' }), undefined);
  assert.equal(of({}), undefined);
});
