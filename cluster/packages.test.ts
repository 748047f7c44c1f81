import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isProvided, missingPackages } from './packages.ts';

test('a program is found on the path, in the system folders, or as a file', () => {
  assert.equal(isProvided('sh', '/bin'), true);
  assert.equal(isProvided('/bin/sh', ''), true);
  assert.equal(isProvided('no-such-program', '/bin:/usr/bin'), false);
  assert.equal(isProvided('/bin/no-such-program'), false);
});

test('only packages whose program is absent are missing', () => {
  const missing = missingPackages((program) => program !== 'runc');
  assert.deepEqual(
    missing.map(({ name }) => name),
    ['runc'],
  );
});
