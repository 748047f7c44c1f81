/**
 * A real object store for the tests of promoted models: prints one line of JSON with its address, the folder of the
 * reader's credentials and its authority. Each line `{"key", "file"}` that it reads puts that file there and prints
 * `{"put"}`; it ends with its standard input.
 */
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { reconcileObjectStore } from '../../bootstrap/object-store/reconcile.ts';
import { startObjectStore } from '../../bootstrap/testing/object-store.ts';

const store = await startObjectStore();
try {
  const users = ['training', 'slm'];
  for (const user of users) await store.credentials(user);
  const plan = { users, buckets: [{ name: 'models', readers: ['slm'], writers: ['training'] }] };
  await reconcileObjectStore(store.admin, plan, store.usersDir);
  const bucket = new ObjectStoreBucket(store.bucket('models', 'training'));
  process.stdout.write(`${JSON.stringify(store.bucket('models', 'slm'))}\n`);
  for await (const line of createInterface({ input: process.stdin })) {
    const { key, file } = JSON.parse(line) as { key: string; file: string };
    await bucket.put(key, await readFile(file), 'application/octet-stream');
    process.stdout.write(`${JSON.stringify({ put: key })}\n`);
  }
} finally {
  await store.stop();
}
