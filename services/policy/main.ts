import { createPrivateKey } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConfigError, createLogger, httpsUrl, messageOf, readConfig, text } from '@somagent/kit';
import { ObjectStoreBucket, ObjectStoreError } from '@somagent/kit/object-store.ts';
import { bucketShelf, publish } from '@somagent/policies/bundle/publish.ts';
import { unpackBundle } from '@somagent/policy/bundle.ts';
import { z } from 'zod';

const log = createLogger({ service: 'policy' });

const variables = z.object({
  OBJECT_STORE_URL: httpsUrl('the https address of the bucket of policies'),
  OBJECT_STORE_CREDENTIALS_DIR: text('the folder with the key that may write to it: username and password'),
  OBJECT_STORE_CA_FILE: text('the file with the authority of the object store'),
  PRIVATE_KEY_FILE: text('the PEM file with the ES256 key that signs bundles'),
  CORPUS_FILE: text('the archive of the compiled corpus').default(join(import.meta.dirname, 'corpus.tar.gz')),
  WAIT_SECONDS: z.coerce.number().int().positive().default(300).describe('how long to wait for the object store'),
});

/** Signs the corpus of this image and publishes it, unless it is in force already. */
async function run(): Promise<void> {
  const config = readConfig(variables);
  if (!existsSync(config.CORPUS_FILE))
    throw new Error(`CORPUS_FILE ${config.CORPUS_FILE} is absent: rebuild the image`);
  const corpus = await unpackBundle(readFileSync(config.CORPUS_FILE));
  const privateKey = createPrivateKey(readFileSync(config.PRIVATE_KEY_FILE));
  const bucket = new ObjectStoreBucket({
    url: config.OBJECT_STORE_URL,
    credentialsDir: config.OBJECT_STORE_CREDENTIALS_DIR,
    caFile: config.OBJECT_STORE_CA_FILE,
  });
  const deadline = Date.now() + config.WAIT_SECONDS * 1000;
  log.info(await untilAnswered(deadline, () => publish(corpus, privateKey, bucketShelf(bucket))), 'policy');
}

/** Waits for the store and for its Job, which makes bucket and user; nothing else mends itself. */
async function untilAnswered<Value>(deadline: number, attempt: () => Promise<Value>): Promise<Value> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      const waits =
        !(error instanceof ObjectStoreError) ||
        ['InvalidAccessKeyId', 'NoSuchBucket', 'AccessDenied'].includes(error.code);
      if (!waits || Date.now() > deadline) throw error;
      await sleep(1000);
    }
  }
}

run().catch((error: unknown) => {
  log.error(
    { reason: messageOf(error) },
    error instanceof ConfigError ? 'configuration' : 'the policy was not published',
  );
  process.exitCode = 1;
});
