import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type RotationWish, rotationSteps, type SigningKey, signingKeyOf } from './signing-keys.ts';

const rules = { replaceAfter: 1000, publish: 50, retire: 100 };
const builtIn: SigningKey = { id: '0', name: 'rsa-generated', state: 'active', createdAt: 0, activatedAt: 0 };

/** What Keycloak would hold after the steps; the same fields that signingKeyOf reads. */
function after(keys: readonly SigningKey[], now: number, wish?: RotationWish): SigningKey[] {
  let next = [...keys];
  for (const step of rotationSteps(keys, rules, now, wish)) {
    if (step.action === 'create') {
      next.push({ id: String(now), name: `signing-${now}`, state: 'published', createdAt: now, activatedAt: 0 });
      continue;
    }
    const { id } = step.key;
    if (step.action === 'remove') next = next.filter((key) => key.id !== id);
    else if (step.action === 'activate')
      next = next.map((key) => (key.id === id ? { ...key, state: 'active', activatedAt: now } : key));
    else next = next.map((key) => (key.id === id ? { ...key, state: 'passive' } : key));
  }
  return next;
}
const states = (keys: readonly SigningKey[]) => keys.map(({ name, state }) => `${name} ${state}`);

describe('rotation', () => {
  it('publishes a key, lets it sign, and removes the old one when its last token has ended', () => {
    let keys = after([builtIn], 5000);
    assert.deepEqual(states(keys), ['rsa-generated active', 'signing-5000 published']);
    keys = after(keys, 5049);
    assert.deepEqual(states(keys), ['rsa-generated active', 'signing-5000 published']);
    keys = after(keys, 5050);
    assert.deepEqual(states(keys), ['rsa-generated passive', 'signing-5000 active']);
    keys = after(keys, 5149);
    assert.deepEqual(states(keys), ['rsa-generated passive', 'signing-5000 active']);
    keys = after(keys, 5150);
    assert.deepEqual(states(keys), ['signing-5000 active']);
    assert.deepEqual(after(keys, 5999), keys);
    assert.deepEqual(states(after(keys, 6000)), ['signing-5000 active', 'signing-6000 published']);
  });

  it('begins at once when it is asked for, once', () => {
    const keys = after(after([builtIn], 5000), 5050);
    const asked = after(keys, 5060, 'now');
    assert.deepEqual(states(asked).at(-1), 'signing-5060 published');
    assert.deepEqual(states(after(asked, 5061, 'now')), states(asked));
  });

  it('ends what a killed run began: of two active keys the newer stays', () => {
    const twice: SigningKey[] = [
      builtIn,
      { id: '1', name: 'signing-4900', state: 'active', createdAt: 4900, activatedAt: 4960 },
    ];
    assert.deepEqual(states(after(twice, 4961)), ['rsa-generated passive', 'signing-4900 active']);
  });

  it('never leaves the realm without a key that signs, nor takes one away whose tokens may live', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 400 }), fc.boolean()), { maxLength: 60 }), (runs) => {
        let keys: SigningKey[] = [builtIn];
        let now = 2000;
        const lastSigned = new Map<string, number>();
        for (const [pause, urgent] of runs) {
          now += pause;
          for (const key of keys.filter(({ state }) => state === 'active')) lastSigned.set(key.id, now);
          const next = after(keys, now, urgent ? 'now' : 'due');
          assert.equal(next.filter(({ state }) => state === 'active').length, 1);
          for (const gone of keys.filter(({ id }) => !next.some((key) => key.id === id))) {
            assert.ok(now - (lastSigned.get(gone.id) ?? 0) >= rules.retire);
          }
          for (const key of next.filter(({ state, activatedAt }) => state === 'active' && activatedAt === now)) {
            assert.ok(now - key.createdAt >= rules.publish);
          }
          keys = next;
        }
      }),
    );
  });
});

describe('signingKeyOf', () => {
  const config = (active: string, priority: string) => ({ active: [active], priority: [priority] });
  it('reads the state of a key from what Keycloak keeps', () => {
    const read = (name: string, active: string, priority: string) =>
      signingKeyOf({ id: 'x', name, config: config(active, priority) });
    assert.deepEqual(read('signing-7', 'false', '0'), {
      id: 'x',
      name: 'signing-7',
      createdAt: 7,
      activatedAt: 0,
      state: 'published',
    });
    assert.deepEqual([read('signing-7', 'true', '9').state, read('signing-7', 'true', '9').activatedAt], ['active', 9]);
    assert.equal(read('signing-7', 'false', '9').state, 'passive');
    assert.deepEqual(
      [read('rsa-generated', 'true', '100').state, read('rsa-generated', 'true', '100').activatedAt],
      ['active', 0],
    );
    assert.equal(read('rsa-generated', 'false', '100').state, 'passive');
  });
});
