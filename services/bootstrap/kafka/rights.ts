import { randomUUID } from 'node:crypto';
import {
  AclOperations,
  Admin,
  ConfigResourceTypes,
  type Connection,
  IncrementalAlterConfigOperationTypes,
  metadataV8,
} from '@platformatic/kafka';
import type { Credentials } from '../settings.ts';
import { everyRule } from './acls.ts';
import { type Brokers, clientOptions, withAdmin } from './connect.ts';
import type { KafkaPlan } from './plan.ts';

/** Whoever may do one of these with a resource may also describe it, says Kafka. */
const implyDescribe: ReadonlySet<string> = new Set(['read', 'write', 'delete', 'alter']);

/** Kafka's error for what a user may not do: of a topic, a group, the cluster. */
const refusals: ReadonlySet<string> = new Set([
  'TOPIC_AUTHORIZATION_FAILED',
  'GROUP_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
]);

/**
 * Asks every running broker, signed in as each user, what the user may do with every topic there is, with every group of
 * the plan and one that nobody has, and with the cluster; and tries what no user may: to make a topic, to read or change
 * settings, to read rights. Nothing is written, so it may run while the platform works.
 * @returns each difference from the plan, in words; none: they may do exactly what is declared
 */
export async function rightsBesidesPlan(
  brokers: Brokers,
  admin: Credentials,
  plan: KafkaPlan,
  users: readonly Credentials[],
): Promise<readonly string[]> {
  const topics = await withAdmin(brokers, admin, (client) => client.listTopics({ includeInternals: true }));
  const found: string[] = [];
  for (const user of users) found.push(...(await differencesOf(brokers, plan, user, topics)));
  // A topic that somebody could make is none of the platform's.
  const made = found.flatMap((text) => / made the topic ([\w-]+)$/.exec(text)?.[1] ?? []);
  if (made.length > 0) await withAdmin(brokers, admin, (client) => client.deleteTopics({ topics: made }));
  return found;
}

async function differencesOf(
  brokers: Brokers,
  plan: KafkaPlan,
  user: Credentials,
  topics: readonly string[],
): Promise<readonly string[]> {
  const client = new Admin({ ...clientOptions(brokers, user), retries: 0 });
  try {
    const found: string[] = [];
    for (const [node, connection] of await client.connectToBrokers()) {
      const { rights, cluster } = await authorized(connection, topics);
      const at = `broker ${node}: ${user.username}`;
      for (const topic of topics) {
        found.push(...compare(`${at}`, `topic ${topic}`, declared(plan, user, 'topic', topic), rights.get(topic) ?? 0));
      }
      found.push(...compare(at, 'the cluster', new Set(), cluster));
    }
    const stranger = `nobody-${randomUUID()}`;
    const groups = new Set([
      ...plan.acls.flatMap(({ resource }) => (resource.type === 'group' ? [resource.name] : [])),
    ]);
    for (const group of [...groups, stranger]) {
      const may = await groupRights(client, group);
      found.push(...compare(user.username, `group ${group}`, declared(plan, user, 'group', group), may));
    }
    return [...found, ...(await forbiddenDeeds(client, user.username, topics))];
  } finally {
    await client.close();
  }
}

/** What the plan lets a user do with a resource, by Kafka's names in small letters. */
function declared(
  { acls }: KafkaPlan,
  { username }: Credentials,
  type: 'topic' | 'group',
  name: string,
): ReadonlySet<string> {
  const granted = acls.filter(
    ({ user, resource }) => user === username && resource.type === type && resource.name === name,
  );
  const operations = granted.flatMap((grant) => grant.operations);
  return new Set([...operations, ...(operations.some((each) => implyDescribe.has(each)) ? ['describe'] : [])]);
}

/** Bits of Kafka's `authorized_operations`; absent is its smallest number. */
function compare(who: string, what: string, expected: ReadonlySet<string>, bits: number): string[] {
  const known = Object.entries(AclOperations).filter(([, bit]) => bit >= AclOperations.READ);
  return known.flatMap(([label, bit]) => {
    const operation = label.toLowerCase();
    const may = bits > 0 && (bits & (1 << bit)) !== 0;
    if (may === expected.has(operation)) return [];
    const not = may ? 'may' : 'may not';
    return [`${who} ${not} ${operation} ${what}, which is ${may ? 'not declared' : 'declared'}`];
  });
}

/** Authorized operations of each topic that this user may see at all, and of the cluster. */
async function authorized(connection: Connection, topics: readonly string[]) {
  const answer = await metadataV8.api
    .async(connection, [...topics], false, true, true)
    // One topic that is refused makes an error of the whole answer, which it carries.
    .catch((error: unknown) => responseIn(error));
  const seen = answer.topics.filter(({ errorCode }) => errorCode === 0);
  const rights = new Map(seen.map(({ name, topicAuthorizedOperations }) => [name, topicAuthorizedOperations]));
  return { rights, cluster: answer.clusterAuthorizedOperations };
}

function responseIn(error: unknown): metadataV8.MetadataResponse {
  if (error instanceof Error && 'response' in error) return error.response as metadataV8.MetadataResponse;
  throw error;
}

async function groupRights(client: Admin, group: string): Promise<number> {
  try {
    const described = await client.describeGroups({ groups: [group], includeAuthorizedOperations: true });
    return described.get(group)?.authorizedOperations ?? 0;
  } catch (error) {
    if (isRefusal(error)) return 0;
    throw error;
  }
}

/**
 * What no user of the plan may do, tried for real: who may not see a topic is not told what else he may do with it. A
 * change of settings is only validated.
 */
async function forbiddenDeeds(client: Admin, user: string, topics: readonly string[]): Promise<string[]> {
  const made = `rights-${randomUUID()}`;
  const deeds: readonly (readonly [string, () => Promise<unknown>])[] = [
    [`made the topic ${made}`, () => client.createTopics({ topics: [made], partitions: 1, replicas: 1 })],
    ['may read the rights of all', () => client.describeAcls({ filter: everyRule })],
    ...topics.flatMap((topic) => [
      [
        `may read the settings of topic ${topic}`,
        () => client.describeConfigs({ resources: [resourceOf(topic)] }),
      ] as const,
      [`may change the settings of topic ${topic}`, () => client.incrementalAlterConfigs(changeOf(topic))] as const,
    ]),
  ];
  const done: string[] = [];
  for (const [name, attempt] of deeds) {
    try {
      await attempt();
      done.push(`${user} ${name}`);
    } catch (error) {
      if (!isRefusal(error)) throw error;
    }
  }
  return done;
}

const resourceOf = (topic: string) => ({ resourceType: ConfigResourceTypes.TOPIC, resourceName: topic });

const changeOf = (topic: string) => {
  const retention = { name: 'retention.ms', value: '2592000000' };
  const configs = [{ ...retention, configOperation: IncrementalAlterConfigOperationTypes.SET }];
  return { resources: [{ ...resourceOf(topic), configs }], validateOnly: true };
};

/** Whether the brokers said that the user may not; the client wraps it several times. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if ('apiId' in error && refusals.has(String(error.apiId))) return true;
  if (error instanceof AggregateError && error.errors.some(isRefusal)) return true;
  return isRefusal(error.cause);
}
