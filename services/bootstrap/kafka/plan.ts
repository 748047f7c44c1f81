import { z } from 'zod';

const topicName = z
  .string()
  .regex(/^[a-zA-Z0-9._-]{1,249}$/, 'must be a topic: up to 249 of a-z, A-Z, 0-9, ".", "_", "-"');
const userName = z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'must be a user name: a-z, 0-9 and -');
/** Names that Kafka gives special meaning would widen a grant. */
const groupName = z.string().regex(/^[a-zA-Z0-9._-]+$/, 'must be the literal name of a group, without wildcard');

const topic = z.strictObject({
  name: topicName,
  partitions: z.int().min(1).max(1000),
  replicas: z.int().min(1).max(9),
  /** Topic settings that differ from the broker's; others that are found are drift. */
  config: z.record(z.string(), z.string()).default({}),
});

const acl = z.strictObject({
  user: userName,
  resource: z.discriminatedUnion('type', [
    z.strictObject({ type: z.literal('topic'), name: topicName }),
    z.strictObject({ type: z.literal('group'), name: groupName }),
  ]),
  operations: z.array(z.enum(['read', 'write', 'describe'])).min(1),
});

/** All schemas of a subject, oldest first; the position is the version. */
const subject = z.strictObject({
  subject: z.string().min(1),
  compatibility: z.literal('BACKWARD'),
  versions: z.array(z.record(z.string(), z.unknown())).min(1),
});

const distinctNames = (names: readonly string[]): boolean => new Set(names).size === names.length;

/** Plan of the `kafka` command: the whole of what the brokers and the registry shall have. */
export const kafkaPlan = z
  .strictObject({
    topics: z.array(topic).default([]),
    users: z.array(z.strictObject({ name: userName })).default([]),
    acls: z.array(acl).default([]),
    schemas: z.array(subject).default([]),
  })
  .refine(({ topics }) => distinctNames(topics.map(({ name }) => name)), {
    error: 'a topic stands twice',
    path: ['topics'],
  })
  .refine(({ users }) => distinctNames(users.map(({ name }) => name)), {
    error: 'a user stands twice',
    path: ['users'],
  })
  .refine(({ users, acls }) => acls.every(({ user }) => users.some(({ name }) => name === user)), {
    error: 'a grant is for a user that is not among the users',
    path: ['acls'],
  });

export type KafkaPlan = z.output<typeof kafkaPlan>;
export type PlannedTopic = KafkaPlan['topics'][number];
export type PlannedAcl = KafkaPlan['acls'][number];
export type PlannedSchemas = KafkaPlan['schemas'][number];
