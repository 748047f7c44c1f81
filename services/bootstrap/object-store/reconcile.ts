import { join } from 'node:path';
import { ObjectStoreClient, type ObjectStoreOptions } from '@somagent/kit/object-store.ts';
import { Failure } from '../failure.ts';
import { log } from '../log.ts';
import { readCredentials } from '../settings.ts';
import type { ObjectStorePlan } from './plan.ts';

type Bucket = ObjectStorePlan['buckets'][number];

/** Brings users, buckets and rights to what the plan says. Safe to repeat and to kill. */
export async function reconcileObjectStore(
  admin: ObjectStoreOptions,
  plan: ObjectStorePlan,
  usersDir: string,
): Promise<void> {
  const client = new ObjectStoreClient(admin);
  const known = await knownUsers(client);
  for (const user of plan.users) await ensureUser(client, user, join(usersDir, user), known.has(user));
  for (const user of known) if (!plan.users.includes(user)) await deleteUser(client, user);
  for (const bucket of plan.buckets) await ensureBucket(client, bucket);
}

/** Source: https://github.com/versity/versitygw/wiki/Multi-Tenant (its admin API is not part of S3). */
async function knownUsers(client: ObjectStoreClient): Promise<Set<string>> {
  const text = await (await client.expect('PATCH', '/list-users')).text();
  return new Set([...text.matchAll(/<Access>([^<]*)<\/Access>/g)].map(([, access = '']) => access));
}

async function ensureUser(client: ObjectStoreClient, user: string, folder: string, known: boolean): Promise<void> {
  const { username, password } = await readCredentials(folder);
  if (username !== user) {
    throw new Failure(`credentials of ${user}: the file username holds another name`, `mount the Secret of ${user}`);
  }
  if (!/^[\w-]+$/.test(password)) {
    throw new Failure(`credentials of ${user}: the password is not base64url`, 'let the secrets Job make it');
  }
  // The server keeps the keys itself, so that a changed one is written anew each time.
  const properties = `<Secret>${password}</Secret><Role>user</Role>`;
  const body = known
    ? `<MutableProps>${properties}</MutableProps>`
    : `<Account><Access>${user}</Access>${properties}</Account>`;
  const path = known ? `/update-user?access=${user}` : '/create-user';
  await client.expect('PATCH', path, { body: Buffer.from(body) });
  if (!known) log.info('user created', { user });
}

async function deleteUser(client: ObjectStoreClient, user: string): Promise<void> {
  await client.expect('PATCH', `/delete-user?access=${user}`);
  log.info('user deleted: no plan names it', { user });
}

async function ensureBucket(client: ObjectStoreClient, bucket: Bucket): Promise<void> {
  const path = `/${bucket.name}`;
  const head = await client.send('HEAD', path);
  if (head.status === 404) {
    await client.expect('PUT', path);
    log.info('bucket created', { bucket: bucket.name });
  }
  const nobody = bucket.readers.length + bucket.writers.length === 0;
  if (nobody) await client.expect('DELETE', `${path}?policy=`);
  else await client.expect('PUT', `${path}?policy=`, { body: Buffer.from(bucketPolicy(bucket)) });
}

/** Rights of a bucket as S3 has them. Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html */
function bucketPolicy({ name, readers, writers }: Bucket): string {
  const objects = `arn:aws:s3:::${name}/*`;
  const bucket = `arn:aws:s3:::${name}`;
  const statement = (users: readonly string[], actions: readonly string[], resource: string) =>
    users.length === 0 ? [] : [{ Effect: 'Allow', Principal: { AWS: users }, Action: actions, Resource: resource }];
  const everybody = [...new Set([...readers, ...writers])];
  return JSON.stringify({
    Version: '2012-10-17',
    Statement: [
      // Without the right to list, an object that is not there looks like one that is forbidden.
      ...statement(everybody, ['s3:ListBucket'], bucket),
      ...statement(everybody, ['s3:GetObject'], objects),
      ...statement(writers, ['s3:PutObject', 's3:DeleteObject'], objects),
    ],
  });
}
