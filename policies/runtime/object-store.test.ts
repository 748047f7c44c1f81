import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { OutgoingEvent } from '@somagent/events';
import { createLogger } from '@somagent/kit';
import { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { reconcileObjectStore } from '../../services/bootstrap/object-store/reconcile.ts';
import {
  objectStoreProgram,
  startObjectStore,
  type TestObjectStore,
} from '../../services/bootstrap/testing/object-store.ts';
import { compileCorpus, opaPath } from '../bundle/corpus.ts';
import { bucketShelf, publish } from '../bundle/publish.ts';
import { revisionOf } from './bundle.ts';
import { createPolicyEngine } from './config.ts';

const missing = [opaPath(), objectStoreProgram()].find((program) => !existsSync(program));
const skip = missing === undefined ? false : `${missing} is not built: run make toolchain`;

describe('policies in a real object store', { skip }, () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  let store: TestObjectStore;
  let folder: string;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'policy-store-'));
    writeFileSync(join(folder, 'public.pem'), publicKey.export({ type: 'spki', format: 'pem' }));
    store = await startObjectStore();
    for (const user of ['policy-publisher', 'policy-reader']) await store.credentials(user);
    const bucket = { name: 'policy', readers: ['policy-reader'], writers: ['policy-publisher'] };
    const plan = { users: ['policy-publisher', 'policy-reader'], buckets: [bucket] };
    await reconcileObjectStore(store.admin, plan, store.usersDir);
  });

  after(async () => {
    await store.stop();
    rmSync(folder, { recursive: true });
  });

  const recorded: string[] = [];
  const engine = () => {
    const config = {
      POLICY_URL: `${store.url}/policy`,
      POLICY_CREDENTIALS_DIR: join(store.usersDir, 'policy-reader'),
      POLICY_CA_FILE: store.caFile,
      POLICY_PUBLIC_KEY_FILE: join(folder, 'public.pem'),
      POLICY_CACHE_DIR: join(folder, 'cache'),
    };
    const keep = async (events: readonly OutgoingEvent[]) =>
      void recorded.push(...events.map(({ value }) => value.type));
    return createPolicyEngine(config, {
      service: 'gateway',
      store: keep,
      log: createLogger({ service: 'gateway', level: 'silent' }),
    });
  };

  it('are published by one user, loaded by another, and go on while the store is away', async () => {
    const shelf = bucketShelf(new ObjectStoreBucket(store.bucket('policy', 'policy-publisher')));
    const corpus = compileCorpus();
    const subject = engine();
    await subject.start();
    assert.match(subject.drift?.reason ?? '', /has the policy been published\?/);
    assert.equal((await publish(corpus, privateKey, shelf)).outcome, 'published');
    assert.equal((await publish(corpus, privateKey, shelf)).outcome, 'unchanged');
    await subject.refresh();
    assert.deepEqual([subject.revision, subject.drift], [revisionOf(corpus), null]);
    await subject.refresh();
    assert.equal(subject.drift, null);

    await store.halt();
    await subject.refresh();
    assert.equal(subject.evaluate('soma/gateway/verdict', {}).rule, 'soma.gateway.deny_malformed');
    assert.notEqual(subject.drift, null);
    const restarted = engine();
    await restarted.start();
    assert.equal(restarted.revision, revisionOf(corpus));

    await store.resume();
    await subject.refresh();
    assert.equal(subject.drift, null);
    await Promise.all([subject.stop(), restarted.stop()]);
    assert.deepEqual(recorded, [
      'policy.drifted',
      'policy.loaded',
      'policy.drifted',
      'policy.loaded',
      'policy.drifted',
    ]);
  });
});
