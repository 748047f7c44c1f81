import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { explain, type RecordedVerdict } from './why.ts';

const root = join(import.meta.dirname, '..');
const denied: RecordedVerdict = {
  time: '2026-01-02T03:04:05.678Z',
  tenant: 'acme',
  actor: { kind: 'service-account', id: '7c1f', client: 'acme-agent' },
  data: {
    service: 'gateway',
    route: 'createTurn',
    method: 'POST',
    path: '/v1/sessions/{id}/turns',
    capability: 'session:turn',
    resource: { type: 'session', id: '3f2a' },
    allow: false,
    rule: 'soma.gateway.deny_relation',
    reasons: ['the relation can_use is not held'],
    revision: 'abc123',
    latencyUs: 118,
    status: 404,
  },
};

test('a denial is explained: who, what, on what, why, by which rule of which bundle, how fast', () => {
  assert.equal(
    explain('r-1', [denied], root),
    [
      'request   r-1',
      'verdict   denied: the relation can_use is not held',
      'who       service account 7c1f of tenant acme, through acme-agent',
      'what      createTurn (POST /v1/sessions/{id}/turns) at gateway, which needs session:turn',
      'on what   session 3f2a',
      'rule      soma.gateway.deny_relation, explained in policies/gateway/README.md',
      'bundle    revision abc123',
      'when      2026-01-02T03:04:05.678Z, decided in 118 µs, answered with 404',
      '',
    ].join('\n'),
  );
});

test('what was refused before any policy says so', () => {
  const text = explain(
    'r-2',
    [
      {
        ...denied,
        tenant: null,
        actor: { kind: 'system', id: 'anonymous', client: null },
        data: {
          ...denied.data,
          route: 'undeclared',
          path: null,
          capability: null,
          resource: null,
          rule: 'soma.governance.token_missing',
          revision: null,
          status: 401,
        },
      },
    ],
    root,
  );
  assert.match(text, /^who {7}nobody known: no credential was accepted$/m);
  assert.match(text, /^what {6}POST at gateway, for which no route is declared$/m);
  assert.match(text, /^rule {6}soma\.governance\.token_missing, explained in services\/governance\/README\.md$/m);
  assert.match(text, /^bundle {4}none was asked/m);
});

test('an allowed request of an operator has no status: its handler answered', () => {
  const { data } = denied;
  const actor = { kind: 'user', id: 'op', client: null };
  const text = explain('r-3', [{ ...denied, tenant: null, actor, data: { ...data, allow: true, status: null } }], root);
  assert.match(text, /^verdict {3}allowed: /m);
  assert.match(text, /^who {7}person op of the platform$/m);
  assert.match(text, /decided in 118 µs$/m);
});

test('a rule that is a path leads nowhere', () => {
  const text = explain('r-4', [{ ...denied, data: { ...denied.data, rule: 'soma.../../etc.x' } }], root);
  assert.match(text, /^rule {6}soma\.\.\.\/\.\.\/etc\.x$/m);
});
