import {
  type Admin,
  ConfigResourceTypes,
  ConfigSources,
  IncrementalAlterConfigOperationTypes,
} from '@platformatic/kafka';
import { Failure } from '../failure.ts';
import { log } from '../log.ts';
import type { PlannedTopic } from './plan.ts';
import type { Report } from './report.ts';

/** A topic as the brokers have it. */
interface ExistingTopic {
  readonly partitions: number;
  readonly replicas: number;
}

/**
 * Creates topics, adds partitions and sets configuration. A topic that nobody declared is reported and stays: it may
 * hold data.
 * @throws Failure before anything is changed when a topic would have to shrink.
 */
export async function reconcileTopics(admin: Admin, topics: readonly PlannedTopic[], report: Report): Promise<void> {
  const existing = await existingTopics(admin);
  for (const topic of topics) refuseShrinking(topic, existing.get(topic.name));
  for (const topic of topics) {
    const found = existing.get(topic.name);
    if (found === undefined) await create(admin, topic, report);
    else await repair(admin, topic, found, report);
  }
  const declared = new Set(topics.map(({ name }) => name));
  const stray = [...existing.keys()].filter((name) => !declared.has(name) && !name.startsWith('__'));
  if (stray.length > 0) log.warn('drift: topics are in no plan and stay, they may hold data', { topics: stray });
}

async function existingTopics(admin: Admin): Promise<ReadonlyMap<string, ExistingTopic>> {
  const names = await admin.listTopics({ includeInternals: false });
  if (names.length === 0) return new Map();
  const { topics } = await admin.metadata({ topics: names, forceUpdate: true });
  return new Map(
    [...topics].map(([name, { partitions, partitionsCount }]) => [
      name,
      { partitions: partitionsCount, replicas: Math.min(...partitions.map(({ replicas }) => replicas.length)) },
    ]),
  );
}

function refuseShrinking({ name, partitions }: PlannedTopic, found: ExistingTopic | undefined): void {
  if (found === undefined || found.partitions <= partitions) return;
  throw new Failure(
    `topic ${name}: partitions is ${partitions} in the plan, the topic has ${found.partitions}; partitions can't be taken away, their events would be lost and keys would change their partition`,
    `declare partitions: ${found.partitions} for ${name}, or move its events to a new topic`,
  );
}

async function create(
  admin: Admin,
  { name, partitions, replicas, config }: PlannedTopic,
  report: Report,
): Promise<void> {
  const configs = Object.entries(config).map(([key, value]) => ({ name: key, value }));
  await admin.createTopics({ topics: [name], partitions, replicas, configs });
  report.created('topic', { topic: name, partitions, replicas });
}

async function repair(admin: Admin, topic: PlannedTopic, found: ExistingTopic, report: Report): Promise<void> {
  const grown = await grow(admin, topic, found, report);
  const configured = await configure(admin, topic, report);
  if (found.replicas !== topic.replicas) {
    const { name, replicas } = topic;
    const fix =
      'reassign its partitions with kafka-reassign-partitions: copies are moved by hand, it loads the brokers';
    log.warn('drift not repaired: replicas', { topic: name, found: found.replicas, declared: replicas, fix });
  }
  if (!grown && !configured) report.unchanged();
}

async function grow(admin: Admin, topic: PlannedTopic, found: ExistingTopic, report: Report): Promise<boolean> {
  const { name, partitions } = topic;
  if (found.partitions === partitions) return false;
  await admin.createPartitions({ topics: [{ name, count: partitions }] });
  report.repaired('partitions', { topic: name, found: found.partitions, declared: partitions });
  return true;
}

/** Sets what differs, and takes away what was set by somebody else. */
async function configure(admin: Admin, { name, config }: PlannedTopic, report: Report): Promise<boolean> {
  const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: name };
  const [described] = await admin.describeConfigs({ resources: [resource] });
  const own = (described?.configs ?? []).filter(
    ({ configSource }) => configSource === ConfigSources.DYNAMIC_TOPIC_CONFIG,
  );
  const present = new Map(own.map(({ name: key, value }) => [key, value ?? '']));
  const set = Object.entries(config).filter(([key, value]) => present.get(key) !== value);
  const unset = [...present.keys()].filter((key) => !(key in config));
  if (set.length + unset.length === 0) return false;
  const { SET, DELETE } = IncrementalAlterConfigOperationTypes;
  const configs = [
    ...set.map(([key, value]) => ({ name: key, configOperation: SET, value })),
    ...unset.map((key) => ({ name: key, configOperation: DELETE })),
  ];
  await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs }] });
  for (const [key, value] of set) {
    report.repaired(key, { topic: name, found: present.get(key) ?? 'not set', declared: value });
  }
  for (const key of unset) report.repaired(key, { topic: name, found: present.get(key), declared: 'not set' });
  return true;
}
