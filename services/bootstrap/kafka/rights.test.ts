/** What each user of the platform's own declaration may do on real brokers with the settings of production. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Acl, AclOperations, AclPermissionTypes, ResourcePatternTypes, ResourceTypes } from '@platformatic/kafka';
import { planOf } from '@somagent/events/plan.ts';
import { startKafka, type TestKafka } from '../testing/kafka.ts';
import { waitFor } from '../wait.ts';
import { reconcile } from './command.ts';
import { type Brokers, withAdmin } from './connect.ts';
import { kafkaPlan } from './plan.ts';
import { rightsBesidesPlan } from './rights.ts';

describe('rights on running brokers', { timeout: 300_000 }, () => {
  let kafka: TestKafka;
  let brokers: Brokers;
  const plan = kafkaPlan.parse({ ...planOf({ replicas: 1 }), schemas: [] });
  const users = plan.users.map(({ name }) => ({ username: name, password: `the-password-of-${name}` }));

  before(async () => {
    kafka = await startKafka();
    brokers = { addresses: kafka.brokers, ca: kafka.ca };
    await reconcile(brokers, kafka.admin, plan, users);
  });
  after(() => kafka?.stop());

  const differences = () => rightsBesidesPlan(brokers, kafka.admin, plan, users);
  /** A broker applies a change a moment after the controller has acknowledged it. */
  const become = (expected: readonly RegExp[]) =>
    waitFor(
      { name: 'the rights', address: kafka.brokers.join(), fix: '' },
      async () => {
        const found = await differences();
        assert.equal(found.length, expected.length, JSON.stringify(found));
        for (const [place, text] of expected.entries()) assert.match(found[place] ?? '', text);
      },
      { seconds: 20 },
    );

  const rule = (changes: Partial<Acl>): Acl => ({
    ...{ resourceType: ResourceTypes.TOPIC, resourceName: 'identity.changes' },
    ...{ resourcePatternType: ResourcePatternTypes.LITERAL, principal: 'User:scaler', host: '*' },
    ...{ operation: AclOperations.READ, permissionType: AclPermissionTypes.ALLOW, ...changes },
  });
  const [stranger = ''] = plan.users.flatMap(({ name }) =>
    plan.acls.some(({ user, resource }) => user === name && resource.name === 'identity.changes') ? [] : [name],
  );
  const plant = (changes: Partial<Acl>) =>
    withAdmin(brokers, kafka.admin, (admin) =>
      admin.createAcls({ creations: [rule({ principal: `User:${stranger}`, ...changes })] }),
    );

  it('are exactly those that are declared, for every user', { timeout: 120_000 }, async () => {
    assert.ok(users.length >= 5 && plan.acls.length >= users.length);
    await become([]);
  });

  it('that somebody added are found, each of its kind, and removed with the next reconciliation', async () => {
    const everything = { operation: AclOperations.ALL, resourcePatternType: ResourcePatternTypes.PREFIXED };
    const plants: readonly (readonly [Partial<Acl>, readonly RegExp[]])[] = [
      [{}, [/may read topic identity\.changes, which is not declared/, /may describe topic identity\.changes/]],
      [{ operation: AclOperations.DESCRIBE_CONFIGS }, [/may read the settings of topic identity\.changes/]],
      [{ operation: AclOperations.ALTER_CONFIGS }, [/may change the settings of topic identity\.changes/]],
      [
        { resourceType: ResourceTypes.GROUP, resourceName: 'nobody-', ...everything },
        [/may read group nobody-/, /may delete group nobody-/, /may describe group nobody-/],
      ],
      [
        {
          resourceType: ResourceTypes.TOPIC,
          resourceName: 'rights-',
          operation: AclOperations.CREATE,
          resourcePatternType: ResourcePatternTypes.PREFIXED,
        },
        [/made the topic rights-/],
      ],
    ];
    for (const [changes, expected] of plants) {
      await plant(changes);
      const found = await waitFor(
        { name: 'the planted rule', address: 'the broker', fix: '' },
        async () => {
          const some = await differences();
          assert.ok(some.length > 0);
          return some;
        },
        { seconds: 20 },
      );
      for (const text of expected)
        assert.ok(
          found.some((each) => text.test(each)),
          `${text}: ${JSON.stringify(found)}`,
        );
      assert.ok(
        found.every((text) => text.includes(stranger)),
        JSON.stringify(found),
      );
      const { removed } = await reconcile(brokers, kafka.admin, plan, users);
      assert.equal(removed, 1);
      await become([]);
    }
  });

  it('that are missing are found too', async () => {
    const [grant] = plan.acls.filter(({ operations }) => operations.includes('write'));
    assert.ok(grant);
    const changed = {
      operation: AclOperations.WRITE,
      principal: `User:${grant.user}`,
      resourceName: grant.resource.name,
    };
    await withAdmin(brokers, kafka.admin, (admin) => admin.deleteAcls({ filters: [rule(changed)] }));
    await become([
      new RegExp(`${grant.user} may not write topic ${grant.resource.name}, which is declared`),
      new RegExp(`${grant.user} may not describe`),
    ]);
    assert.equal((await reconcile(brokers, kafka.admin, plan, users)).created, 1);
    await become([]);
  });
});
