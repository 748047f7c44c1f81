import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from './log.ts';

test('writes JSON lines with the service, and no credential at any depth', () => {
  const lines: string[] = [];
  const log = createLogger({ service: 'gateway', level: 'info', destination: { write: (line) => lines.push(line) } });
  log.info(
    { authorization: 'Bearer s3cret', request: { headers: { authorization: 's3cret' }, token: 's3cret' } },
    'in',
  );
  log.info({ config: { postgres: { password: 's3cret' } } }, 'start');
  assert.equal(lines.length, 2);
  assert.equal(lines.join('').includes('s3cret'), false);
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  assert.equal(line.service, 'gateway');
  assert.equal(line.level, 'info');
  assert.equal(line.authorization, '[redacted]');
});
