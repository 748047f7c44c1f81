import { currentSchemas } from './json-schema.ts';
import history from './schemas.json' with { type: 'json' };
import { type ServiceName, services, type Topic, topicNames, topics } from './topics.ts';

/** A topic as the brokers shall have it. */
export interface PlannedTopic {
  readonly name: string;
  readonly partitions: number;
  readonly replicas: number;
  readonly config: Readonly<Record<string, string>>;
}

/** What one user may do with one resource, by its literal name. */
export interface PlannedAcl {
  readonly user: string;
  readonly resource: { readonly type: 'topic' | 'group'; readonly name: string };
  readonly operations: readonly ('read' | 'write' | 'describe')[];
}

/** All schemas of a subject, oldest first. */
export interface PlannedSchemas {
  readonly subject: string;
  readonly compatibility: 'BACKWARD';
  readonly versions: readonly Readonly<Record<string, unknown>>[];
}

/** The plan of the bootstrap command `kafka`. */
export interface KafkaPlan {
  readonly topics: readonly PlannedTopic[];
  readonly users: readonly { readonly name: string }[];
  readonly acls: readonly PlannedAcl[];
  readonly schemas: readonly PlannedSchemas[];
}

/** Options of {@link planOf}. */
export interface PlanOptions {
  /** Copies of each partition; at most the number of brokers. @default 3 */
  readonly replicas?: number;
}

const dayMs = 24 * 3600 * 1000;

function plannedTopic(name: string, topic: Topic, replicas: number): PlannedTopic {
  const config = {
    'cleanup.policy': 'delete',
    'retention.ms': String(topic.retentionDays * dayMs),
    // With acks=all an event is on two brokers before it is acknowledged, and one broker may be away.
    'min.insync.replicas': String(Math.max(1, replicas - 1)),
    'unclean.leader.election.enable': 'false',
  };
  return { name, partitions: topic.partitions, replicas, config };
}

/** Write includes describe, and since Kafka 3.0 the right to produce idempotently. */
function grantsOf(user: ServiceName): readonly PlannedAcl[] {
  const named = (role: 'producers' | 'consumers') =>
    topicNames.filter((name) => (topics[name][role] as readonly ServiceName[]).includes(user));
  const grant = (name: string, operation: 'read' | 'write'): PlannedAcl => ({
    user,
    resource: { type: 'topic', name },
    operations: [operation],
  });
  const reads = named('consumers').map((name) => grant(name, 'read'));
  const group: readonly PlannedAcl[] =
    reads.length === 0 ? [] : [{ user, resource: { type: 'group', name: user }, operations: ['read'] }];
  return [...named('producers').map((name) => grant(name, 'write')), ...reads, ...group];
}

/** Topics, users, grants and schemas: what is not in it, the brokers refuse. */
export function planOf({ replicas = 3 }: PlanOptions = {}): KafkaPlan {
  const versions = history as Readonly<Record<string, PlannedSchemas['versions']>>;
  return {
    topics: topicNames.map((name) => plannedTopic(name, topics[name], replicas)),
    users: services.map((name) => ({ name })),
    acls: services.flatMap(grantsOf),
    schemas: currentSchemas().map(({ subject }) => ({
      subject,
      compatibility: 'BACKWARD',
      versions: versions[subject] ?? [],
    })),
  };
}
