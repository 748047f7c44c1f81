import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Scope } from './scope.ts';
import { filterOf } from './vector-filter.ts';

const now = 1_700_000_000_000;

test('the tenant is the first condition, and what is visible the second', () => {
  const scope: Scope = {
    tenant: 'acme',
    visible: { owner: 'ada', teams: ['blue'], sessions: ['s1'] },
    filter: { kinds: ['semantic'], persona: null, since: new Date(5) },
  };
  assert.deepEqual(filterOf(scope, now), {
    must: [
      { key: 'tenant', match: { value: 'acme' } },
      {
        should: [
          { key: 'owner', match: { value: 'ada' } },
          { key: 'team', match: { any: ['blue'] } },
          { key: 'session_id', match: { any: ['s1'] } },
        ],
      },
      { key: 'persona', match: { value: '' } },
      { key: 'kind', match: { any: ['semantic'] } },
      { key: 'created_at', range: { gte: 5 } },
      { key: 'expires_at', range: { gt: now } },
    ],
  });
});

test('who may see nothing is shown nothing, not everything', () => {
  const { must } = filterOf({ tenant: 'acme', visible: {}, filter: {} }, now);
  assert.deepEqual((must as unknown[])[1], { should: [{ key: 'owner', match: { value: '' } }] });
});

test('whatever names contain, they stay values of the tenant that asks', () => {
  const name = fc.oneof(
    fc.string(),
    fc.constantFrom('globex', '*', '"}]}', '{"match":{"any":["globex"]}}', '__proto__'),
  );
  fc.assert(
    fc.property(name, name, name, (owner, persona, team) => {
      const { must } = filterOf({ tenant: 'acme', visible: { owner }, filter: { persona, team } }, now);
      const conditions = must as { key?: string; match?: { value?: string } }[];
      assert.deepEqual(conditions[0], { key: 'tenant', match: { value: 'acme' } });
      assert.equal(conditions.filter(({ key }) => key === 'tenant').length, 1);
      assert.equal(conditions.find(({ key }) => key === 'persona')?.match?.value, persona);
    }),
  );
});
