import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentOf, mountsOf, TestRegion, wholeRegion } from '../testing.ts';

test('it reaches what it keeps alike, with a role that only reads who owns a session', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const worker = region.find('Deployment', 'relations');
  const environment = environmentOf(worker);
  assert.equal(environment.OPENFGA_URL, 'https://openfga.north-identity.svc:8443');
  assert.equal(environment.IDENTITY_URL, 'https://identity.north-services.svc:8443');
  assert.equal(environment.PGDATABASE, 'sessions');
  assert.equal(environment.RECONCILE_SECONDS, '300');
  const mounts = mountsOf(worker);
  assert.equal(mounts['/secrets/postgres'], 'postgres-role-sessions-relations');
  assert.equal(mounts['/secrets/kafka'], 'kafka-user-relations');
  assert.equal(mounts['/secrets/openfga'], 'openfga-key');
  assert.equal(worker.spec.strategy.type, 'Recreate');
  const callers = environmentOf(region.find('Deployment', 'identity')).WORKLOAD_CALLERS;
  assert.match(String(callers), /system:serviceaccount:north-services:relations/);
});

test('each role of the database of sessions has a password of its own', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const roles = region.plan.close().secrets.filter(({ name }) => name.startsWith('postgres-role-sessions'));
  assert.deepEqual(
    roles.map(({ name }) => name),
    ['postgres-role-sessions', 'postgres-role-sessions-gateway', 'postgres-role-sessions-relations'],
  );
});
