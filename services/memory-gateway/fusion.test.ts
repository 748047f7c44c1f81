import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { defaultWeights, fuse, weighted } from './fusion.ts';

test('what both ways find comes before what one way finds', () => {
  const ranked = fuse(['a', 'b', 'c'], ['d', 'b', 'e']);
  assert.deepEqual(
    ranked.map(({ id }) => id),
    ['b', 'a', 'd', 'c', 'e'],
  );
  assert.deepEqual(ranked[0], { id: 'b', score: 1 / 62 + 1 / 62, vectors: 2, keywords: 2 });
  assert.deepEqual(ranked[1], { id: 'a', score: 1 / 61, vectors: 1, keywords: null });
});

test('a way of weight 0 decides nothing', () => {
  const ranked = fuse(['a', 'b'], ['b', 'a'], { vectors: 1, keywords: 0 });
  assert.deepEqual(
    ranked.map(({ id }) => id),
    ['a', 'b'],
  );
});

test('each id is ranked once, whatever comes, and never above one that both ways put before it', () => {
  const ids = fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'));
  fc.assert(
    fc.property(ids, ids, (vectors, keywords) => {
      const ranked = fuse(vectors, keywords).map(({ id }) => id);
      assert.deepEqual([...ranked].sort(), [...new Set([...vectors, ...keywords])].sort());
      for (const [place, id] of ranked.entries()) {
        for (const later of ranked.slice(place + 1)) assert.ok(!dominates(later, id, vectors, keywords));
      }
    }),
  );
});

function dominates(a: string, b: string, ...rankings: readonly (readonly string[])[]): boolean {
  const placeIn = (ranking: readonly string[], id: string) => (ranking.includes(id) ? ranking.indexOf(id) : Infinity);
  return rankings.every((ranking) => placeIn(ranking, a) < placeIn(ranking, b));
}

test('newer and more important memories gain, by what the weights say', () => {
  const day = 24 * 3600 * 1000;
  const base = { score: 1 };
  const { recency, halfLifeDays, importance } = defaultWeights;
  assert.equal(weighted(base, { ageMs: 0, importance: 0 }), 1 + recency);
  assert.equal(weighted(base, { ageMs: halfLifeDays * day, importance: 0 }), 1 + recency / 2);
  assert.equal(weighted(base, { ageMs: -day, importance: 0 }), 1 + recency);
  assert.ok(Math.abs(weighted(base, { ageMs: 1000 * halfLifeDays * day, importance: 1 }) - (1 + importance)) < 1e-9);
});
