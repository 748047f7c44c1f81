import { distinct, InvalidPropError, integerBetween } from '../core/validate.ts';

/** A topic as the brokers shall have it. */
export interface KafkaTopic {
  readonly name: string;
  readonly partitions: number;
  /** Copies of each partition; at most the number of brokers. */
  readonly replicas: number;
  /** Settings as Kafka names them: `retention.ms`, `min.insync.replicas`. */
  readonly config: Readonly<Record<string, string>>;
}

/** What one user may do with one resource, by its literal name. */
export interface KafkaGrant {
  readonly user: string;
  readonly resource: { readonly type: 'topic' | 'group'; readonly name: string };
  readonly operations: readonly ('read' | 'write' | 'describe')[];
}

/** Topics, users and grants: what is not in it, the brokers refuse. `planOf()` of @somagent/events makes one. */
export interface KafkaDeclaration {
  readonly topics: readonly KafkaTopic[];
  readonly users: readonly { readonly name: string }[];
  readonly acls: readonly KafkaGrant[];
}

/** Checks a declaration against the cluster that shall carry it. */
export function checkedDeclaration(declared: KafkaDeclaration, brokers: number): KafkaDeclaration {
  const { topics, users, acls } = declared;
  distinct(
    'declared.topics',
    topics.map(({ name }) => name),
  );
  const names = distinct(
    'declared.users',
    users.map(({ name }) => name),
  );
  for (const { name, partitions, replicas } of topics) {
    integerBetween(`partitions of topic ${name}`, partitions, 1, 1000);
    integerBetween(`replicas of topic ${name}`, replicas, 1, brokers);
  }
  const stranger = acls.find(({ user }) => !names.includes(user));
  if (stranger === undefined) return { topics, users, acls };
  throw new InvalidPropError('user of a grant', stranger.user, names.join(', '), 'Add it to declared.users.');
}
