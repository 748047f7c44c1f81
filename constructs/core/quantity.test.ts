import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bytesOf, canonicalBytes, canonicalCores, millicoresOf, resourceRequirements } from './quantity.ts';

test('quantities are read exactly', () => {
  assert.equal(bytesOf('storage', '512Mi'), 536_870_912);
  assert.equal(millicoresOf('cpu', '250m'), 250);
  assert.equal(millicoresOf('cpu', '2'), 2000);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 999_999_999 }), (n) => assert.equal(bytesOf('storage', `${n}Ki`), n * 1024)),
  );
});

test('decimal suffixes, fractions and nonsense are refused', () => {
  for (const wrong of ['512M', '0Mi', '1.5Gi', '1', 'Gi', '-1Gi']) {
    assert.throws(() => bytesOf('storage', wrong), {
      message: `storage is "${wrong}"; allowed: a whole number followed by Ki, Mi, Gi or Ti. Use for instance "512Mi".`,
    });
  }
  assert.throws(() => millicoresOf('cpu', '0.5'), /^InvalidPropError: cpu is "0.5"; allowed: whole cores/);
});

test('the limit is the request where none is given, and never below it', () => {
  assert.deepEqual(resourceRequirements('resources', { cpu: '50m', memory: '64Mi' }), {
    requests: { cpu: '50m', memory: '64Mi' },
    limits: { cpu: '2', memory: '64Mi' },
  });
  assert.throws(() => resourceRequirements('resources', { cpu: '50m', memory: '1Gi', memoryLimit: '512Mi' }), {
    message: 'resources.memory is "1Gi"; allowed: at most memoryLimit (512Mi). Raise memoryLimit.',
  });
});

test('amounts are written as the API server returns them', () => {
  assert.equal(canonicalBytes('memory', '1024Mi'), '1Gi');
  assert.equal(canonicalBytes('memory', '1536Mi'), '1536Mi');
  assert.equal(canonicalCores('cpu', '1000m'), '1');
  assert.equal(canonicalCores('cpu', '1500m'), '1500m');
  const amount = fc.tuple(fc.integer({ min: 1, max: 99_999 }), fc.constantFrom('Ki', 'Mi', 'Gi', 'Ti'));
  fc.assert(
    fc.property(amount, ([count, suffix]) => {
      const canonical = canonicalBytes('memory', `${count}${suffix}`);
      assert.equal(bytesOf('memory', canonical), bytesOf('memory', `${count}${suffix}`));
      assert.equal(canonicalBytes('memory', canonical), canonical);
    }),
  );
});
