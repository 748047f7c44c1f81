import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyOf } from './policy.ts';

const page = (policy: string) => JSON.stringify({ ready: true, checks: { postgres: 'ok', policy } });

test('a readiness page says which policy decides, and whether it is the published one', () => {
  assert.deepEqual(policyOf('a', page('ok: revision 5f861c3f6843')), {
    pod: 'a',
    revision: '5f861c3f6843',
    drift: null,
  });
  assert.deepEqual(policyOf('a', page('ok: revision 5f861c3f6843, drift: not signed')), {
    pod: 'a',
    revision: '5f861c3f6843',
    drift: 'not signed',
  });
});

test('a pod without a policy is said to have none', () => {
  const none = (text: string) => policyOf('a', text).revision;
  assert.equal(none(page('no policy bundle: fetch failed')), null);
  assert.equal(policyOf('a', page('no policy bundle: fetch failed')).drift, 'no policy bundle: fetch failed');
  assert.equal(none('{}'), null);
  assert.equal(none('no JSON'), null);
});
