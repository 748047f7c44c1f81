import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kafkaPlan } from '@somagent/bootstrap/kafka/plan.ts';
import { eventTypes, planOf, services, subjectOf, topicNames, topics } from './index.ts';

test('the bootstrap command reads the plan', () => {
  assert.deepEqual(kafkaPlan.parse(JSON.parse(JSON.stringify(planOf()))), planOf());
});

test('a topic has three copies, two of them acknowledged, and 30 days', () => {
  assert.deepEqual(planOf().topics[0], {
    name: 'audit.identity',
    partitions: 3,
    replicas: 3,
    config: {
      'cleanup.policy': 'delete',
      'retention.ms': '2592000000',
      'min.insync.replicas': '2',
      'unclean.leader.election.enable': 'false',
    },
  });
  assert.equal(planOf({ replicas: 1 }).topics[0]?.config['min.insync.replicas'], '1');
});

test('the grants of a service are exactly its topics and its own group', () => {
  const granted = planOf()
    .acls.filter(({ user }) => user === 'audit')
    .map(({ resource, operations }) => `${operations.join()} ${resource.type} ${resource.name}`);
  assert.deepEqual(granted, [
    'write topic audit.control',
    'write topic verdict.decisions',
    'read topic audit.identity',
    'read topic audit.session',
    'read topic audit.control',
    'read topic audit.memory',
    'read topic verdict.decisions',
    'read group audit',
  ]);
});

test('nobody is granted what the topics do not say', () => {
  const said = topicNames.flatMap((name) => [
    ...topics[name].producers.map((user) => `${user} write ${name}`),
    ...topics[name].consumers.map((user) => `${user} read ${name}`),
  ]);
  const granted = planOf()
    .acls.filter(({ resource }) => resource.type === 'topic')
    .flatMap(({ user, resource, operations }) =>
      operations.map((operation) => `${user} ${operation} ${resource.name}`),
    );
  assert.deepEqual(granted.toSorted(), said.toSorted());
  assert.deepEqual(
    planOf().users.map(({ name }) => name),
    [...services],
  );
});

test('every type of every topic has its schemas in the plan', () => {
  const { schemas } = planOf();
  for (const { subject, versions } of schemas) assert.ok(versions.length > 0, `${subject} has no schema`);
  assert.deepEqual(
    schemas.map(({ subject }) => subject),
    topicNames.flatMap((name) => eventTypes(name).map((type) => subjectOf(name, type))),
  );
  for (const name of topicNames) assert.ok(eventTypes(name).length > 0, `${name} has no event`);
});
