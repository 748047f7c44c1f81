import { randomBytes } from 'node:crypto';
import { reconcile } from '@somagent/bootstrap/kafka/command.ts';
import { kafkaPlan } from '@somagent/bootstrap/kafka/plan.ts';
import { startKafka, type TestKafka, type TestKafkaOptions } from '@somagent/bootstrap/testing/kafka.ts';
import { type KafkaPlan, planOf } from './plan.ts';

/** The variables of a connection to Kafka, as a service gets them. */
export interface TestKafkaVariables {
  readonly KAFKA_BROKERS: string;
  readonly KAFKA_CREDENTIALS_DIR: string;
  readonly KAFKA_CA_FILE: string;
}

/** A real Kafka with the topics, users and grants of a plan. */
export interface TestEventKafka extends TestKafka {
  /** The variables of a service, as its pod has them. */
  variables(user: string): Promise<TestKafkaVariables>;
  /** Grants what the plan does not. */
  grant(right: Right): Promise<void>;
}

/** What one user may do with one topic. */
export interface Right {
  readonly user: string;
  readonly topic: string;
  readonly operation: 'read' | 'write';
}

/** Starts Kafka and reconciles it with a plan, by default that of the platform. */
export async function startEventKafka(
  options: TestKafkaOptions & { readonly plan?: (replicas: number) => KafkaPlan } = {},
): Promise<TestEventKafka> {
  const kafka = await startKafka(options);
  try {
    const plan = kafkaPlan.parse((options.plan ?? ((replicas) => planOf({ replicas })))(kafka.copies));
    const users = plan.users.map(({ name }) => ({ username: name, password: randomBytes(24).toString('base64url') }));
    const brokers = { addresses: kafka.brokers, ca: kafka.ca };
    await reconcile(brokers, kafka.admin, plan, users);
    return Object.assign(kafka, {
      variables: (user: string) => variables(kafka, users, user),
      grant: async ({ user, topic, operation }: Right) => {
        const acl = { user, resource: { type: 'topic' as const, name: topic }, operations: [operation] };
        await reconcile(brokers, kafka.admin, { ...plan, acls: [...plan.acls, acl] }, users);
      },
    });
  } catch (error) {
    await kafka.stop();
    throw error;
  }
}

async function variables(
  kafka: TestKafka,
  users: readonly { readonly username: string; readonly password: string }[],
  name: string,
): Promise<TestKafkaVariables> {
  const user = [...users, kafka.admin].find(({ username }) => username === name);
  if (user === undefined) throw new Error(`no user ${name} in the plan: ${users.map(({ username }) => username)}`);
  return {
    KAFKA_BROKERS: kafka.brokers.join(','),
    KAFKA_CREDENTIALS_DIR: await kafka.credentialsFolder(user),
    KAFKA_CA_FILE: kafka.caFile,
  };
}
