import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it, test } from 'node:test';
import { RelationsRefused } from '@somagent/relations/client.ts';
import { currentModel, ensureModel, type ModelLocation } from '@somagent/relations/store.ts';
import { hasOpenFga, startOpenFga, type TestOpenFga } from '@somagent/relations/testing/openfga.ts';
import type { Tuple } from '@somagent/relations/tuples.ts';
import { generatedModel } from './generate.ts';

const fact = (user: string, relation: string, object: string, end?: string): Tuple => ({
  user,
  relation,
  object,
  ...(end && { condition: { name: 'until', context: { end } } }),
});

const past = '2026-01-01T00:00:00Z';
const future = '2126-01-01T00:00:00Z';

/** Two tenants. In acme: ada leads nothing, is in blue; bob in red; carol administers; olga audits; eve left. */
const facts: readonly Tuple[] = [
  ...['ada', 'bob', 'carol', 'olga', 'agent-blue'].map((name) => fact(`user:acme/${name}`, 'member', 'tenant:acme')),
  fact('user:acme/carol', 'admin', 'tenant:acme'),
  fact('user:acme/olga', 'auditor', 'tenant:acme'),
  fact('user:globex/gil', 'member', 'tenant:globex'),
  fact('user:globex/gil', 'admin', 'tenant:globex'),
  ...['blue', 'red'].map((name) => fact('tenant:acme', 'tenant', `team:acme/${name}`)),
  fact('user:acme/ada', 'member', 'team:acme/blue'),
  fact('user:acme/agent-blue', 'member', 'team:acme/blue'),
  fact('user:acme/bob', 'member', 'team:acme/red'),
  // Left the tenant; what is left of her grants must be worth nothing.
  fact('user:acme/eve', 'member', 'team:acme/blue'),
  fact('user:acme/eve', 'admin', 'tenant:acme'),
  fact('user:acme/eve', 'owner', 'session:acme/s1'),
  fact('tenant:acme', 'tenant', 'persona:acme/scout'),
  fact('team:acme/blue', 'team', 'persona:acme/scout'),
  fact('user:acme/agent-blue', 'account', 'persona:acme/scout'),
  fact('tenant:acme', 'tenant', 'persona:acme/clerk'),
  fact('team:acme/red', 'team', 'persona:acme/clerk'),
  fact('tenant:acme', 'tenant', 'session:acme/s1'),
  fact('user:acme/ada', 'owner', 'session:acme/s1'),
  fact('team:acme/blue', 'team', 'session:acme/s1'),
  fact('tenant:acme', 'tenant', 'memory:acme/m1'),
  fact('session:acme/s1', 'session', 'memory:acme/m1'),
  fact('tenant:acme', 'tenant', 'memory:acme/m2'),
  fact('user:acme/bob', 'owner', 'memory:acme/m2'),
  fact('user:acme/eve', 'owner', 'memory:acme/m2'),
  fact('tenant:acme', 'tenant', 'memory:acme/m3'),
  fact('team:acme/red', 'team', 'memory:acme/m3'),
  fact('tenant:acme', 'tenant', 'capsule:acme/kit'),
  fact('team:acme/blue', 'team', 'capsule:acme/kit'),
  fact('team:acme/red#member', 'grantee', 'capsule:acme/kit', future),
  fact('tenant:acme', 'tenant', 'capsule:acme/old'),
  fact('team:acme/red#member', 'grantee', 'capsule:acme/old', past),
  fact('tenant:acme', 'tenant', 'tool:acme/shell'),
  fact('team:acme/blue#member', 'grantee', 'tool:acme/shell'),
  fact('user:acme/bob', 'grantee', 'tool:acme/shell', past),
  // Planted: tuples that cross tenants, as a fault or an attack would leave them.
  fact('user:globex/gil', 'owner', 'session:acme/s1'),
  fact('user:globex/gil', 'owner', 'memory:acme/m2'),
  fact('user:globex/gil', 'member', 'team:acme/blue'),
  fact('user:globex/gil', 'admin', 'tenant:acme'),
  fact('user:globex/gil', 'grantee', 'tool:acme/shell'),
  fact('team:acme/blue', 'team', 'session:globex/s9'),
  fact('tenant:globex', 'tenant', 'session:globex/s9'),
];

/** Object, permission, who has it. Everybody else must be refused. */
const permissions: readonly (readonly [string, string, readonly string[]])[] = [
  ['tenant:acme', 'can_view', ['ada', 'bob', 'carol', 'olga', 'agent-blue']],
  ['tenant:acme', 'can_manage', ['carol']],
  ['tenant:acme', 'can_audit', ['carol', 'olga']],
  ['team:acme/blue', 'can_view', ['ada', 'agent-blue', 'carol', 'olga']],
  ['team:acme/blue', 'can_manage', ['carol']],
  ['team:acme/red', 'can_view', ['bob', 'carol', 'olga']],
  ['persona:acme/scout', 'can_view', ['ada', 'agent-blue', 'carol', 'olga']],
  ['persona:acme/scout', 'can_use', ['ada', 'agent-blue', 'carol']],
  ['persona:acme/clerk', 'can_view', ['bob', 'carol', 'olga']],
  ['persona:acme/clerk', 'can_use', ['bob', 'carol']],
  ['session:acme/s1', 'can_view', ['ada', 'agent-blue', 'carol', 'olga']],
  ['session:acme/s1', 'can_use', ['ada', 'agent-blue']],
  ['session:acme/s1', 'can_close', ['ada', 'agent-blue', 'carol']],
  ['session:globex/s9', 'can_view', ['globex/gil']],
  // A team of acme stands in this session of globex: it opens nothing to ada, who is in that team.
  ['session:globex/s9', 'can_use', ['globex/gil']],
  ['memory:acme/m1', 'can_view', ['ada', 'agent-blue', 'carol', 'olga']],
  ['memory:acme/m1', 'can_use', ['ada', 'agent-blue']],
  ['memory:acme/m1', 'can_forget', ['carol']],
  ['memory:acme/m2', 'can_view', ['bob']],
  ['memory:acme/m2', 'can_use', ['bob']],
  ['memory:acme/m2', 'can_forget', ['bob', 'carol']],
  ['memory:acme/m3', 'can_view', ['bob', 'carol', 'olga']],
  ['memory:acme/m3', 'can_use', ['bob']],
  ['memory:acme/m3', 'can_forget', ['carol']],
  ['capsule:acme/kit', 'can_view', ['ada', 'agent-blue', 'bob', 'carol', 'olga']],
  ['capsule:acme/kit', 'can_use', ['ada', 'agent-blue', 'bob']],
  ['capsule:acme/kit', 'can_manage', ['ada', 'agent-blue', 'carol']],
  ['capsule:acme/old', 'can_view', ['carol', 'olga']],
  ['capsule:acme/old', 'can_use', []],
  ['tool:acme/shell', 'can_view', ['ada', 'agent-blue', 'carol', 'olga']],
  ['tool:acme/shell', 'can_use', ['ada', 'agent-blue']],
];

const everybody = ['ada', 'bob', 'carol', 'olga', 'agent-blue', 'eve', 'nobody', 'globex/gil'];
const userNamed = (name: string) => `user:${name.includes('/') ? name : `acme/${name}`}`;

test('model.json is made from model.fga', () => {
  assert.equal(readFileSync(join(import.meta.dirname, 'model.json'), 'utf8'), generatedModel());
});

test('every permission of the model is in the table', () => {
  const types = currentModel.type_definitions as { type: string; relations?: Record<string, unknown> }[];
  const derived = types.flatMap(({ type, relations = {} }) =>
    Object.keys(relations).flatMap((name) => (name.startsWith('can_') ? [`${type} ${name}`] : [])),
  );
  const tried = new Set(permissions.map(([object, name]) => `${object.split(':')[0]} ${name}`));
  assert.deepEqual([...tried].sort(), derived.sort());
});

describe('the model on a real OpenFGA', { skip: !hasOpenFga() && 'OpenFGA is not built' }, () => {
  let openfga: TestOpenFga;
  let at: ModelLocation;

  before(async () => {
    openfga = await startOpenFga();
    at = await ensureModel(openfga.client);
    await openfga.client.write(at.store, at.model, facts, []);
  });
  after(() => openfga.stop());

  for (const [object, relation, holders] of permissions) {
    it(`${relation} on ${object}: ${holders.join(', ') || 'nobody'}`, async () => {
      const questions = everybody.map((name) => ({ tuple: { user: userNamed(name), relation, object } }));
      const answers = await openfga.client.checkAll(at.store, at.model, questions);
      assert.deepEqual(everybody.filter((_, index) => answers[index]).sort(), [...holders].sort());
    });
  }

  it('lists to each only the agents of the own team', async () => {
    const agentsOf = async (name: string) =>
      (
        await openfga.client.listObjects(at.store, at.model, {
          user: userNamed(name),
          relation: 'can_view',
          type: 'persona',
        })
      ).toSorted();
    assert.deepEqual(await agentsOf('ada'), ['persona:acme/scout']);
    assert.deepEqual(await agentsOf('bob'), ['persona:acme/clerk']);
    assert.deepEqual(await agentsOf('carol'), ['persona:acme/clerk', 'persona:acme/scout']);
    assert.deepEqual(await agentsOf('eve'), []);
    assert.deepEqual(await agentsOf('globex/gil'), []);
  });

  it('takes no tuple for a permission, nor of a type that the relation does not admit', async () => {
    const wrong = [
      fact('user:acme/bob', 'can_view', 'session:acme/s1'),
      fact('team:acme/blue', 'owner', 'session:acme/s1'),
      fact('user:*', 'member', 'tenant:acme'),
      fact('user:acme/bob', 'owner', 'session:acme/s1', future),
    ];
    for (const tuple of wrong) {
      await assert.rejects(openfga.client.write(at.store, at.model, [tuple], []), RelationsRefused, tuple.relation);
    }
  });
});
