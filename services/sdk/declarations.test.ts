/** What the declarations of all services say together. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { apis } from './generate.ts';

const facts = JSON.parse(readFileSync(new URL('../../policies/facts/data.json', import.meta.url), 'utf8')) as {
  readonly roles: Readonly<Record<string, readonly string[]>>;
  readonly callers: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
};
const declared = Object.entries(apis).flatMap(([service, routes]) =>
  Object.values(routes).map((route) => ({ service, ...route, capability: route.capability, audit: route.audit })),
);

test('every capability that a route asks for is given to somebody', () => {
  const given = new Set([
    ...Object.values(facts.roles).flat(),
    ...Object.values(facts.callers).flatMap((callers) => Object.values(callers).flat()),
  ]);
  const unknown = declared.filter(({ capability }) => !given.has(capability));
  assert.deepEqual(
    unknown.map(({ service, operationId, capability }) => `${service} ${operationId}: ${capability}`),
    [],
  );
});

test('a route that changes something is recorded as a change', () => {
  const silent = declared.filter(({ method, audit, operationId }) => {
    const asks = ['verifyApiKey', 'recallMemories'].includes(operationId);
    return method !== 'get' && !asks && audit !== 'write' && audit !== 'admin';
  });
  assert.deepEqual(
    silent.map(({ service, operationId }) => `${service} ${operationId}`),
    [],
  );
});

test('an operation has one name in all services, so that a verdict names one route', () => {
  const names = declared.map(({ operationId }) => operationId).filter((name) => name !== 'getOpenApi');
  assert.deepEqual(
    names.filter((name, index) => names.indexOf(name) !== index),
    [],
  );
});
