import { pbkdf2, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import {
  Admin,
  alterUserScramCredentialsV0,
  type Connection,
  describeUserScramCredentialsV0,
  ScramMechanisms,
} from '@platformatic/kafka';
import { Failure } from '../failure.ts';
import type { Credentials } from '../settings.ts';
import { type Brokers, clientOptions, isWrongPassword } from './connect.ts';
import type { Report } from './report.ts';

const derive = promisify(pbkdf2);
const mechanism = ScramMechanisms.SCRAM_SHA_512;
/** Twice what RFC 7677 asks for; Kafka admits 4096 to 16384. A client derives the key once per connection. */
const iterations = 8192;
/** Kafka's error when no user of a request has a credential. */
const resourceNotFound = 91;

/** Sets the credential of each user whose password does not sign in, and removes users that nobody declared. */
export async function reconcileUsers(
  admin: Admin,
  brokers: Brokers,
  users: readonly Credentials[],
  administrator: string,
  report: Report,
): Promise<void> {
  const connection = await anyConnection(admin);
  const existing = await existingUsers(connection);
  for (const user of users) await ensure(connection, brokers, user, existing.has(user.username), report);
  const kept = new Set([administrator, ...users.map(({ username }) => username)]);
  for (const name of existing) if (!kept.has(name)) await remove(connection, name, report);
}

/** Any broker will do: it hands the request on to the controller. */
async function anyConnection(admin: Admin): Promise<Connection> {
  for (const connection of (await admin.connectToBrokers()).values()) return connection;
  throw new Error('the brokers name no broker');
}

async function existingUsers(connection: Connection): Promise<ReadonlySet<string>> {
  const { errorCode, results } = await describeUserScramCredentialsV0.api.async(connection, null);
  if (errorCode !== 0 && errorCode !== resourceNotFound)
    throw new Error(`users can't be listed: Kafka error ${errorCode}`);
  return new Set(results.map(({ user }) => user));
}

async function ensure(
  connection: Connection,
  brokers: Brokers,
  user: Credentials,
  exists: boolean,
  report: Report,
): Promise<void> {
  if (exists && (await canSignIn(brokers, user))) return report.unchanged();
  const salt = randomBytes(32);
  const saltedPassword = await derive(user.password, salt, iterations, 64, 'sha512');
  await alter(connection, user.username, [], [{ name: user.username, mechanism, iterations, salt, saltedPassword }]);
  if (exists) report.repaired('password', { user: user.username });
  else report.created('user', { user: user.username });
}

async function remove(connection: Connection, name: string, report: Report): Promise<void> {
  await alter(connection, name, [{ name, mechanism }], []);
  report.removed('user', { user: name });
}

type Alteration = typeof alterUserScramCredentialsV0.createRequest;

async function alter(
  connection: Connection,
  name: string,
  deletions: Parameters<Alteration>[0],
  upsertions: Parameters<Alteration>[1],
): Promise<void> {
  const { results } = await alterUserScramCredentialsV0.api.async(connection, deletions, upsertions);
  const failed = results.find(({ errorCode }) => errorCode !== 0);
  if (failed === undefined) return;
  throw new Failure(
    `credential of user ${name}: Kafka refuses it (error ${failed.errorCode}: ${failed.errorMessage ?? 'no reason given'})`,
    'read the log of the active controller for the reason',
  );
}

/** A stored credential can't be compared with a password: only the brokers can tell. */
export async function canSignIn(brokers: Brokers, user: Credentials): Promise<boolean> {
  const client = new Admin({ ...clientOptions(brokers, user), retries: 0 });
  try {
    await client.metadata({ topics: [] });
    return true;
  } catch (error) {
    if (isWrongPassword(error)) return false;
    throw error;
  } finally {
    await client.close();
  }
}
