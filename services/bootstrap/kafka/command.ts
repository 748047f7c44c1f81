import { join } from 'node:path';
import { z } from 'zod';
import { Failure } from '../failure.ts';
import { log } from '../log.ts';
import {
  type Credentials,
  type Environment,
  readCredentials,
  readJson,
  readPem,
  readSettings,
  waitSettings,
} from '../settings.ts';
import { waitFor } from '../wait.ts';
import { reconcileAcls } from './acls.ts';
import { type Brokers, isWrongPassword, kafkaSettings, withAdmin } from './connect.ts';
import { type KafkaPlan, kafkaPlan } from './plan.ts';
import { type Counts, Report } from './report.ts';
import { rightsBesidesPlan } from './rights.ts';
import { reconcileTopics } from './topics.ts';
import { reconcileUsers } from './users.ts';

const settings = z.object({
  PLAN: z.string().default('/etc/soma/plan.json'),
  ADMIN_DIR: z.string().default('/secrets/admin'),
  USERS_DIR: z.string().default('/secrets/users'),
  ...kafkaSettings,
  ...waitSettings,
});

/** Makes topics, users and rights of the brokers what the plan says, and says what was different. */
export async function runKafka(env: Environment): Promise<void> {
  const { values, plan, brokers, admin, users } = await readAll(env);
  const kafka = {
    name: 'Kafka',
    address: values.KAFKA_BROKERS.join(','),
    fix: 'look at the broker pods and their log, the NetworkPolicy, and the Secrets kafka-admin and kafka-tls',
  };
  const counts = await waitFor(kafka, () => reconcile(brokers, admin, plan, users), {
    seconds: values.WAIT_SECONDS,
    isFinal: isWrongPassword,
  });
  log.info('kafka done', { ...counts });
}

/**
 * Asks the running brokers whether each user may do exactly what the plan says.
 * @throws Failure that names every difference
 */
export async function runKafkaRights(env: Environment): Promise<void> {
  const { plan, brokers, admin, users } = await readAll(env);
  const differences = await rightsBesidesPlan(brokers, admin, plan, users);
  for (const difference of differences) log.error('a right is not as declared', { difference });
  log.info('kafka rights', { users: users.length, differences: differences.length });
  if (differences.length === 0) return;
  throw new Failure(
    `${differences.length} rights are not as declared`,
    'run the command `kafka`, which removes what is too much, and look who added it',
  );
}

async function readAll(env: Environment) {
  const values = readSettings(settings, env);
  const plan = await readJson(kafkaPlan, values.PLAN);
  const brokers = { addresses: values.KAFKA_BROKERS, ca: await readPem(values.KAFKA_CA_FILE) };
  const admin = await readCredentials(values.ADMIN_DIR);
  const users = await readUsers(plan, values.USERS_DIR);
  return { values, plan, brokers, admin, users };
}

async function readUsers(plan: KafkaPlan, directory: string): Promise<readonly Credentials[]> {
  return Promise.all(
    plan.users.map(async ({ name }) => {
      const credentials = await readCredentials(join(directory, name));
      if (credentials.username === name) return credentials;
      throw new Failure(
        `user ${name}: its Secret is of user ${credentials.username}`,
        `mount the Secret of ${name} at ${join(directory, name)}`,
      );
    }),
  );
}

/** One pass over the brokers. Every step compares first, so a pass that was cut short is simply done again. */
export function reconcile(
  brokers: Brokers,
  admin: Credentials,
  plan: KafkaPlan,
  users: readonly Credentials[],
): Promise<Counts> {
  return withAdmin(brokers, admin, async (client) => {
    const report = new Report();
    const needed = Math.max(1, ...plan.topics.map(({ replicas }) => replicas));
    const { size } = (await client.metadata({ topics: [], forceUpdate: true })).brokers;
    if (size < needed) throw new Error(`${size} brokers are up, the topics need ${needed}`);
    await reconcileTopics(client, plan.topics, report);
    await reconcileUsers(client, brokers, users, admin.username, report);
    await reconcileAcls(client, plan.acls, report);
    return report.counts;
  });
}
