import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  distinct,
  dnsLabel,
  httpsOrigin,
  InvalidPropError,
  nodePort,
  oddQuorum,
  oneOf,
  pinnedImage,
} from './validate.ts';

function message(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof InvalidPropError);
    return error.message;
  }
  return 'no error';
}

test('a wrong prop says field, value, what is allowed and the fix', () => {
  assert.equal(
    message(() => oddQuorum('members', 4)),
    'members is 4; allowed: an odd number from 1 to 9. Use 3: it survives the loss of one member ' +
      '(an even number costs one more and survives no more).',
  );
  assert.equal(
    message(() => nodePort('exposure.nodePort', 8443)),
    'exposure.nodePort is 8443; allowed: a whole number from 30000 to 32767. Use for instance 30000.',
  );
  assert.equal(
    message(() => dnsLabel('region', 'EU West!')),
    'region is "EU West!"; allowed: a DNS label: 1–63 of a–z, 0–9 and "-", starting with a letter, ending with a ' +
      'letter or digit. Use for instance "eu-west".',
  );
  assert.equal(
    message(() => oneOf('renderer', 'helm', ['pods', 'kuberay'])),
    'renderer is "helm"; allowed: "pods", "kuberay". Use "pods".',
  );
  assert.equal(
    message(() => distinct('databases', ['a', 'b', 'a'])),
    'databases is ["a","b","a"]; allowed: each value once. Remove the second "a".',
  );
});

test('a suggested label is always admitted itself', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 90 }), (text) => {
      const suggestion = /for instance "([^"]*)"\.$/.exec(message(() => dnsLabel('name', text)))?.[1];
      if (suggestion !== undefined) assert.equal(dnsLabel('name', suggestion), suggestion);
      else assert.equal(dnsLabel('name', text), text);
    }),
  );
});

test('an https origin has neither path nor another scheme', () => {
  assert.equal(httpsOrigin('hostname', 'https://localhost:8444'), 'https://localhost:8444');
  for (const wrong of ['http://localhost', 'https://localhost/', 'https://localhost/auth', 'localhost', '']) {
    assert.match(
      message(() => httpsOrigin('hostname', wrong)),
      /^hostname is .*allowed: an https origin/,
    );
  }
});

test('an image has a tag or digest', () => {
  const digest = `registry.test/a@sha256:${'0'.repeat(64)}`;
  for (const right of ['registry.test:5000/a/b:1', digest]) assert.equal(pinnedImage('image', right), right);
  for (const wrong of ['a', 'registry.test:5000/a', 'a:latest', 'a: 1', 'a:']) {
    assert.match(
      message(() => pinnedImage('image', wrong)),
      /^image is .*floating|^image is .*allowed: an image with a tag/,
    );
  }
});
