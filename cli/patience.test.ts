import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { patienceOf, patiently } from './patience.ts';

const { signal } = new AbortController();
const always = () => true;

describe('patiently', () => {
  it('tries again until it succeeds', async () => {
    let tries = 0;
    const attempt = async () => {
      tries += 1;
      if (tries < 3) throw new Error('not yet');
      return tries;
    };
    assert.equal(await patiently(10, signal, always, attempt), 3);
  });

  it('throws the last failure when the time is over, and tries once when there is none', async () => {
    let tries = 0;
    const attempt = () => Promise.reject(new Error(`failure ${++tries}`));
    await assert.rejects(patiently(0, signal, always, attempt), { message: 'failure 1' });
    const started = performance.now();
    await assert.rejects(patiently(1, signal, always, attempt), { message: /^failure [34]$/ });
    assert.ok(performance.now() - started < 1500);
  });

  it('does not repeat what will not pass, and stops when it is interrupted', async () => {
    let tries = 0;
    const attempt = () => Promise.reject(new Error(`failure ${++tries}`));
    await assert.rejects(
      patiently(10, signal, () => false, attempt),
      { message: 'failure 1' },
    );
    await assert.rejects(patiently(10, AbortSignal.timeout(100), always, attempt), { name: 'AbortError' });
  });

  it('is as long as SOMA_PATIENCE says, in seconds', () => {
    assert.deepEqual([{}, { SOMA_PATIENCE: '3' }, { SOMA_PATIENCE: 'long' }].map(patienceOf), [20, 3, 20]);
  });
});
