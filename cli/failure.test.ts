import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CliFailure, exitCodes, formatFailure, reasonOf } from './failure.ts';

describe('formatFailure', () => {
  const failure = new CliFailure('no region "mars"', 'use one of: local', exitCodes.usage);

  it('is two lines for people, without a stack trace', () => {
    assert.equal(formatFailure(failure, false), 'error: no region "mars"\n next: use one of: local\n');
  });

  it('is one JSON object for programs', () => {
    assert.deepEqual(JSON.parse(formatFailure(failure, true)), {
      error: 'no region "mars"',
      next: 'use one of: local',
    });
  });

  it('says for a defect how to get its trace', () => {
    assert.match(
      formatFailure(new TypeError('x is not a function'), false),
      /^error: x is not a function\n next: .*SOMA_DEBUG=1/,
    );
  });
});

describe('reasonOf', () => {
  it('finds the cause that Node wraps twice', () => {
    const refused = new Error('connect ECONNREFUSED 127.0.0.1:8443');
    const wrapped = new TypeError('fetch failed', { cause: new AggregateError([refused], '') });
    assert.equal(reasonOf(wrapped), 'connect ECONNREFUSED 127.0.0.1:8443');
  });
});
