import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SecretPlan } from './secret-plan.ts';

test('a secret that several planes ask for is one entry with all their namespaces', () => {
  const plan = new SecretPlan('north');
  plan.password('role', 'app', 'north-runtime');
  assert.deepEqual(plan.password('role', 'app', 'north-data'), { name: 'role', namespace: 'north-data' });
  plan.token('api-key', 'north-runtime');
  assert.deepEqual(plan.close(), {
    region: 'north',
    authority: { namespace: 'north-system', name: 'region-ca' },
    secrets: [
      { kind: 'token', name: 'api-key', namespaces: ['north-runtime'] },
      { kind: 'password', username: 'app', name: 'role', namespaces: ['north-data', 'north-runtime'] },
    ],
  });
});

test('the document does not depend on the order of asking', () => {
  const asks = [...'abcdef'].map((name) => (plan: SecretPlan) => plan.token(name, `north-${name}`));
  const document = (order: typeof asks) => {
    const plan = new SecretPlan('north');
    for (const ask of order) ask(plan);
    return plan.close();
  };
  fc.assert(
    fc.property(fc.shuffledSubarray(asks, { minLength: asks.length }), (order) => {
      assert.deepEqual(document(order), document(asks));
    }),
  );
});

test('one name can not mean two things', () => {
  const plan = new SecretPlan('north');
  plan.password('role', 'app', 'north-data');
  assert.throws(() => plan.password('role', 'other', 'north-data'), {
    message:
      'secret role of region north is asked for twice with different content: {"kind":"password","username":"app"} and ' +
      '{"kind":"password","username":"other"}. Give the second one another name.',
  });
});

test('what is asked for too late is refused, what is known already is not', () => {
  const plan = new SecretPlan('north');
  plan.token('known', 'north-data');
  plan.close();
  assert.deepEqual(plan.token('known', 'north-data'), { name: 'known', namespace: 'north-data' });
  assert.throws(() => plan.token('known', 'north-runtime'), {
    message:
      'secret known for north-runtime was asked for after the plan of region north was closed. ' +
      'Construct Bootstrap after every product that it serves.',
  });
});

test('a signing key lies in one namespace, its public half wherever it is verified', () => {
  const plan = new SecretPlan('north');
  plan.publicKey('checkpoint', 'north-data');
  assert.deepEqual(plan.signingKey('checkpoint', 'Ed25519', 'north-system'), {
    name: 'checkpoint',
    namespace: 'north-system',
  });
  assert.deepEqual(plan.publicKey('checkpoint', 'north-services'), {
    name: 'checkpoint-public',
    namespace: 'north-services',
  });
  assert.throws(() => plan.signingKey('checkpoint', 'Ed25519', 'north-services'), {
    message:
      'signing key checkpoint lies in north-system and was asked for in north-services. ' +
      'Sign in one place, or name another key.',
  });
  assert.deepEqual(plan.close().secrets, [
    { kind: 'signing-key', algorithm: 'Ed25519', name: 'checkpoint', namespaces: ['north-system'] },
    { kind: 'public-key', of: 'checkpoint', name: 'checkpoint-public', namespaces: ['north-data', 'north-services'] },
  ]);
});

test('a public half that nobody signs for is refused', () => {
  const plan = new SecretPlan('north');
  plan.publicKey('checkpoint', 'north-data');
  assert.throws(() => plan.close(), {
    message:
      'the public half of checkpoint is asked for in region north, but nobody asked for the signing key. ' +
      'Construct the signer of checkpoint too.',
  });
});
