import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import { type EventData, EventError, event, readEvent, subjectOf } from './index.ts';
import history from './schemas.json' with { type: 'json' };

const actor = { kind: 'user', id: 'alice', client: 'somagent-cli' } as const;
const data: EventData<'audit.identity', 'user.removed'> = { userId: 'u1', username: 'bob' };
const removed = () => event('audit.identity', 'user.removed', { tenant: 'acme', actor, requestId: 'r1', data });

test('an event has the key, the headers and the envelope of its contract', () => {
  const time = new Date('2026-01-02T03:04:05.006Z');
  const id = '01a208d1-f997-7444-b2c8-320d7ac9d0f0';
  assert.deepEqual(event('audit.identity', 'user.removed', { tenant: 'acme', actor, data, id, time }), {
    topic: 'audit.identity',
    key: 'acme/u1',
    value: {
      id,
      type: 'user.removed',
      version: 1,
      time: '2026-01-02T03:04:05.006Z',
      tenant: 'acme',
      actor,
      requestId: null,
      data,
    },
    headers: { 'content-type': 'application/json', schema: 'audit.identity-user.removed:1', id },
  });
});

test('without a tenant the key belongs to the platform', () => {
  const { key } = event('audit.control', 'control.halted', {
    tenant: null,
    actor,
    data: { scope: 'all', reason: 'drill' },
  });
  assert.equal(key, 'platform/halt');
});

test('ids are version 7 and differ', () => {
  const ids = new Set(Array.from({ length: 1000 }, () => removed().value.id));
  assert.equal(ids.size, 1000);
  for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
});

test('an event that does not keep its contract is refused with every field', () => {
  const wrong = { userId: '', extra: 1 } as unknown as typeof data;
  assert.throws(
    () => event('audit.identity', 'user.removed', { tenant: 'acme', actor, data: wrong }),
    (error: unknown) => {
      assert.ok(error instanceof EventError);
      assert.match(error.message, /^event user\.removed of audit\.identity: data\.userId: .*data\.username: .*"extra"/);
      return true;
    },
  );
  assert.throws(
    () => event('audit.identity', 'user.removed', { tenant: '', actor, data }),
    /^EventError: event user\.removed of audit\.identity: tenant: /,
  );
  assert.throws(
    () => event('audit.identity', 'user.promoted' as 'user.removed', { tenant: 'acme', actor, data }),
    /no such type; declare it in services\/events\/contracts$/,
  );
});

test('a real validator accepts an event under the schema of the registry, and refuses a bent one', () => {
  const [schema] = history[subjectOf('audit.identity', 'user.removed') as 'audit.identity-user.removed'];
  const validate = new Ajv({ strict: false, validateFormats: false }).compile(schema as object);
  assert.equal(validate(removed().value), true, JSON.stringify(validate.errors));
  assert.equal(validate({ ...removed().value, id: 'no uuid' }), false);
  assert.equal(validate({ ...removed().value, data: { ...data, extra: 1 } }), false);
});

test('a reader gets the event, without fields that it does not know', () => {
  const { value } = removed();
  const sent = JSON.parse(JSON.stringify({ ...value, data: { ...data, newer: true } }));
  assert.deepEqual(readEvent('audit.identity', sent), value);
});

test('a reader refuses an unknown type and a broken event', () => {
  assert.throws(() => readEvent('audit.identity', { type: 'user.promoted' }), /user\.promoted .* no such type/);
  assert.throws(() => readEvent('audit.identity', 'text'), /\(none\)/);
  assert.throws(() => readEvent('audit.identity', { ...removed().value, time: 'today' }), /time: Invalid ISO datetime/);
  assert.throws(() => readEvent('audit.identity', { type: 'constructor' }), /no such type/);
});
