import assert from 'node:assert/strict';
import { generateKeyPairSync, sign, verify } from 'node:crypto';
import { describe, it } from 'node:test';
import { createSigningKey, readSigningKey } from './signing-keys.ts';

describe('signing keys', () => {
  for (const algorithm of ['ES256', 'Ed25519', 'RS256'] as const) {
    it(`sign by ${algorithm} what the public half verifies`, () => {
      const key = createSigningKey(algorithm);
      const digest = algorithm === 'Ed25519' ? null : 'sha256';
      const signature = sign(digest, Buffer.from('checkpoint'), key['private.pem']);
      assert.equal(verify(digest, Buffer.from('checkpoint'), key['public.pem'], signature), true);
      assert.equal(verify(digest, Buffer.from('other'), key['public.pem'], signature), false);
      assert.equal(
        verify(digest, Buffer.from('checkpoint'), createSigningKey(algorithm)['public.pem'], signature),
        false,
      );
    });

    it(`are read again as they were made, by ${algorithm}`, () => {
      const key = createSigningKey(algorithm);
      assert.deepEqual(readSigningKey(algorithm, key['private.pem']), key);
    });
  }

  it('of another algorithm or broken are not taken', () => {
    const edwards = createSigningKey('Ed25519')['private.pem'];
    const elliptic = createSigningKey('ES256')['private.pem'];
    assert.equal(readSigningKey('ES256', edwards), undefined);
    assert.equal(readSigningKey('RS256', elliptic), undefined);
    const { privateKey: short } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    assert.equal(readSigningKey('RS256', short.export({ type: 'pkcs8', format: 'pem' }).toString()), undefined);
    assert.equal(readSigningKey('Ed25519', elliptic), undefined);
    assert.equal(readSigningKey('ES256', elliptic.slice(0, 90)), undefined);
    assert.equal(readSigningKey('ES256', ''), undefined);
  });
});
