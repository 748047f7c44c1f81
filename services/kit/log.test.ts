import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asTenant, createLogger, reasonOf } from './log.ts';

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

test('every line names its tenant, once', async () => {
  const lines: string[] = [];
  const log = createLogger({ service: 'gateway', level: 'info', destination: { write: (line) => lines.push(line) } });
  log.info('starts');
  await asTenant('acme', async () => {
    await Promise.resolve();
    log.warn({ sessionId: 'x' }, 'cut');
    log.info({ tenant: 'globex' }, 'named by itself');
    log.info({ tenant: undefined }, 'named by nobody');
  });
  log.info({ tenant: null }, 'again the platform');
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).tenant),
    ['platform', 'acme', 'globex', 'acme', 'platform'],
  );
  assert.ok(lines.every((line) => line.split('"tenant"').length === 2));
});

test('every line of a request names the request too, and those of work within it', async () => {
  const lines: string[] = [];
  const log = createLogger({ service: 'gateway', level: 'info', destination: { write: (line) => lines.push(line) } });
  const inside = () => asTenant('globex', async () => log.info('on behalf'));
  const work = async () => {
    log.info('own');
    log.info({ requestId: 'r2' }, 'named');
    await inside();
  };
  await asTenant('acme', work, 'r1');
  log.info('after');
  assert.deepEqual(
    lines.map((line) => JSON.parse(line)).map(({ tenant, requestId }) => [tenant, requestId]),
    [
      ['acme', 'r1'],
      ['acme', 'r2'],
      ['globex', 'r1'],
      ['platform', undefined],
    ],
  );
  assert.ok(lines.every((line) => line.split('"requestId"').length <= 2));
});

test('tells the reason behind an error that only wraps it', () => {
  const refused = new Error('connect ECONNREFUSED 127.0.0.1:1');
  assert.equal(reasonOf(new TypeError('fetch failed', { cause: refused })), refused.message);
  assert.equal(reasonOf(new TypeError('fetch failed', { cause: new AggregateError([refused]) })), refused.message);
  assert.equal(reasonOf(refused), refused.message);
  assert.equal(reasonOf('text'), 'text');
});
