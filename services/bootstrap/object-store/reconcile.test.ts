import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fetchTrusting } from '@somagent/kit';
import { ObjectStoreBucket, ObjectStoreClient } from '@somagent/kit/object-store.ts';
import { objectStoreProgram, startObjectStore, type TestObjectStore } from '../testing/object-store.ts';
import { reconcileObjectStore } from './reconcile.ts';

const skip = existsSync(objectStoreProgram()) ? false : `${objectStoreProgram()} is not built: run make toolchain`;
const plan = {
  users: ['policy-publisher', 'policy-reader'],
  buckets: [
    { name: 'policy', readers: ['policy-reader'], writers: ['policy-publisher'] },
    { name: 'other', readers: [], writers: [] },
  ],
};

describe('buckets on a real object store', { skip }, () => {
  let store: TestObjectStore;
  const as = (user: string, bucket = 'policy') => new ObjectStoreBucket(store.bucket(bucket, user));

  before(async () => {
    store = await startObjectStore();
    for (const user of plan.users) await store.credentials(user);
    await reconcileObjectStore(store.admin, plan, store.usersDir);
  });

  after(() => store.stop());

  it('let a writer write what a reader reads, and say when nothing changed', async () => {
    await as('policy-publisher').put('bundles/a', Buffer.from('one'), 'text/plain');
    const object = await as('policy-reader').get('bundles/a');
    assert.ok(object !== undefined && object !== 'unchanged');
    assert.equal(object.content.toString(), 'one');
    assert.equal(await as('policy-reader').get('bundles/a', object.etag), 'unchanged');
    assert.equal(await as('policy-reader').get('bundles/b'), undefined);
  });

  it('refuse a reader that writes, and both in a bucket that is not theirs', async () => {
    const denied = { status: 403, code: 'AccessDenied' };
    await assert.rejects(as('policy-reader').put('bundles/a', Buffer.from('two'), 'text/plain'), denied);
    await assert.rejects(as('policy-reader', 'other').get('anything'), denied);
    await assert.rejects(as('policy-publisher', 'other').put('x', Buffer.from('x'), 'text/plain'), denied);
    await assert.rejects(new ObjectStoreClient(store.bucket('', 'policy-publisher')).expect('PUT', 'mine'), denied);
  });

  it('refuse a wrong secret key, an unknown user and a request that nobody signed', async () => {
    await store.credentials('stranger');
    await assert.rejects(as('stranger').get('bundles/a'), { status: 403, code: 'InvalidAccessKeyId' });
    const unsigned = await fetchTrusting(store.caFile)(`${store.url}/policy/bundles/a`);
    assert.equal(unsigned.status, 403);
    await store.credentials('policy-reader');
    await assert.rejects(as('policy-reader').get('bundles/a'), { status: 403, code: 'SignatureDoesNotMatch' });
    // The Job takes over the new key.
    await reconcileObjectStore(store.admin, plan, store.usersDir);
    assert.notEqual(await as('policy-reader').get('bundles/a'), undefined);
  });

  it('stay as they are when the Job is repeated, four at once too', async () => {
    const again = () => reconcileObjectStore(store.admin, plan, store.usersDir);
    await Promise.all([again(), again(), again(), again()]);
    const object = await as('policy-reader').get('bundles/a');
    assert.ok(object !== undefined && object !== 'unchanged');
    assert.equal(object.content.toString(), 'one');
  });

  it('lose a user that no plan names', async () => {
    const without = {
      ...plan,
      users: ['policy-reader'],
      buckets: [{ name: 'policy', readers: ['policy-reader'], writers: [] }],
    };
    await reconcileObjectStore(store.admin, without, store.usersDir);
    await assert.rejects(as('policy-publisher').get('bundles/a'), { status: 403, code: 'InvalidAccessKeyId' });
    await reconcileObjectStore(store.admin, plan, store.usersDir);
  });

  it('name a Secret that belongs to another user', async () => {
    await writeFile(join(store.usersDir, 'policy-reader', 'username'), 'policy-publisher');
    await assert.rejects(reconcileObjectStore(store.admin, plan, store.usersDir), {
      message: 'credentials of policy-reader: the file username holds another name',
      fix: 'mount the Secret of policy-reader',
    });
    await writeFile(join(store.usersDir, 'policy-reader', 'username'), 'policy-reader');
  });
});
