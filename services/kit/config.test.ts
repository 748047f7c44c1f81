import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { ConfigError, count, httpsUrl, port, readConfig, text } from './config.ts';

const schema = z.object({
  HOST: text('the host name of the server'),
  PORT: port('the port of the server, 1-65535').default(5432),
  URL: httpsUrl('the https address of the model'),
  LIMIT: count('a positive number').default(3),
});

test('reads values, applies defaults, drops a trailing slash', () => {
  assert.deepEqual(readConfig(schema, { HOST: 'db', URL: 'https://slm/v1/', LIMIT: '7', OTHER: 'x' }), {
    HOST: 'db',
    PORT: 5432,
    URL: 'https://slm/v1',
    LIMIT: 7,
  });
});

test('names every wrong variable with its value and the fix, in one error', () => {
  assert.throws(
    () => readConfig(schema, { HOST: '', PORT: 'many', URL: 'http://slm/v1' }),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.equal(error.problems.length, 3);
      assert.equal(error.problems[0], 'HOST is not set. Set it to the host name of the server.');
      assert.match(error.problems[1] ?? '', /^PORT is "many": .* Set it to the port of the server, 1-65535\.$/);
      assert.match(
        error.problems[2] ?? '',
        /^URL is "http:\/\/slm\/v1": .* Set it to the https address of the model\.$/,
      );
      return true;
    },
  );
});
