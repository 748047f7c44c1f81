import { z } from 'zod';

const topicName = z.string().regex(/^[a-z0-9]+(\.[a-z0-9-]+)+$/, 'must be <area>.<stream> of a-z, 0-9 and -');
const userName = z.string().regex(/^[a-z][a-z0-9-]*$/, 'must be the name of a service: a-z, 0-9 and -');

const topic = z.strictObject({
  name: topicName,
  partitions: z.int().positive(),
  replicas: z.int().positive(),
  /** Settings of the topic as Kafka names them: `retention.ms`, `min.insync.replicas`, `cleanup.policy`. */
  config: z.record(z.string(), z.string()),
});

/** Literal names only: a prefix or a wildcard would also grant what is declared tomorrow. */
const acl = z.strictObject({
  user: userName,
  resource: z.strictObject({ type: z.enum(['topic', 'group']), name: z.string().min(1) }),
  operations: z.array(z.enum(['read', 'write', 'describe'])).min(1),
});

const schema = z.strictObject({
  subject: z.string().min(1),
  compatibility: z.enum(['BACKWARD']),
  /** JSON Schemas draft-07, oldest first: the registry numbers them 1, 2, 3 ... in this order. */
  versions: z.array(z.record(z.string(), z.unknown())).min(1),
});

/** Plan of the `kafka` command: everything that the brokers and the schema registry must have, and nothing else. */
export const kafkaPlan = z.strictObject({
  topics: z.array(topic),
  /** Who may log in with SCRAM-SHA-512; principals are `User:<name>`. */
  users: z.array(z.strictObject({ name: userName })),
  acls: z.array(acl),
  schemas: z.array(schema),
});

/** What {@link kafkaPlan} reads. */
export type KafkaPlan = z.output<typeof kafkaPlan>;
