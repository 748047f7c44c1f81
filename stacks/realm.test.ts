import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { realmSchema } from '@somagent/bootstrap/realm-types.ts';
import { platformRealm } from './realm.ts';

const of = (environment: string, probeClients = false) =>
  realmSchema.parse(platformRealm(environment, { tenants: ['acme', 'globex'], probeClients }));

describe('the platform realm', () => {
  for (const environment of ['dev', 'staging', 'production']) {
    it(`is whole in ${environment}, and short-lived`, () => {
      const realm = of(environment);
      assert.ok(realm.accessTokenSeconds <= 300);
      assert.deepEqual(
        realm.clients
          .filter(({ clientId }) => clientId.endsWith('-agent'))
          .map(({ clientId, tenant }) => [clientId, tenant]),
        [
          ['acme-agent', 'acme'],
          ['globex-agent', 'globex'],
        ],
      );
      assert.ok(
        realm.publicClients.every(({ redirectUris }) =>
          redirectUris.every((uri) => /^(https:|http:\/\/127\.0\.0\.1\/)/.test(uri)),
        ),
      );
    });
  }

  it('has people in dev only: two admins, two members in two teams, an auditor a tenant, and two operators', () => {
    assert.deepEqual([of('staging').people, of('production').people], [[], []]);
    const people = of('dev').people;
    assert.deepEqual(
      people
        .filter(({ tenant }) => tenant === 'acme')
        .map(({ username, roles, teams }) => [username, roles[0], teams[0]]),
      [
        ['acme-admin-1', 'tenant-admin', undefined],
        ['acme-admin-2', 'tenant-admin', undefined],
        ['acme-member-1', 'member', 'blue'],
        ['acme-member-2', 'member', 'green'],
        ['acme-auditor', 'auditor', undefined],
      ],
    );
    assert.deepEqual(
      people.filter(({ tenant }) => tenant === undefined).map(({ username, roles }) => [username, roles]),
      [
        ['operator-1', ['operator']],
        ['operator-2', ['operator']],
      ],
    );
  });

  it('gives rights on the realm to the identity service alone', () => {
    const privileged = of('dev', true).clients.filter(({ managementRoles }) => managementRoles.length > 0);
    assert.deepEqual(
      privileged.map(({ clientId, scopes }) => [clientId, scopes]),
      [['somagent-identity', []]],
    );
  });

  it('names the stacks that it knows', () => {
    assert.throws(() => of('moon'), {
      message: "there is no realm for stack 'moon'; known are dev, staging, production: add stacks/realms/moon.ts",
    });
  });
});
