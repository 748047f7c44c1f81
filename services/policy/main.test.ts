import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { compileCorpus, opaPath } from '@somagent/policies/bundle/corpus.ts';
import { packBundle, revisionOf } from '@somagent/policy/bundle.ts';
import { reconcileObjectStore } from '../bootstrap/object-store/reconcile.ts';
import { objectStoreProgram, startObjectStore, type TestObjectStore } from '../bootstrap/testing/object-store.ts';

const missing = [opaPath(), objectStoreProgram()].find((program) => !existsSync(program));
const skip = missing === undefined ? false : `${missing} is not built: run make toolchain`;

describe('the publisher', { skip }, () => {
  let store: TestObjectStore;
  let folder: string;
  let environment: Record<string, string>;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'publisher-'));
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeFileSync(join(folder, 'private.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    writeFileSync(join(folder, 'corpus.tar.gz'), await packBundle(compileCorpus()));
    store = await startObjectStore();
    await store.credentials('policy-publisher');
    environment = {
      OBJECT_STORE_URL: `${store.url}/policy`,
      OBJECT_STORE_CREDENTIALS_DIR: join(store.usersDir, 'policy-publisher'),
      OBJECT_STORE_CA_FILE: store.caFile,
      PRIVATE_KEY_FILE: join(folder, 'private.pem'),
      CORPUS_FILE: join(folder, 'corpus.tar.gz'),
    };
  });

  after(async () => {
    await store.stop();
    rmSync(folder, { recursive: true });
  });

  const run = (changes: Record<string, string> = {}) => {
    const env = { PATH: process.env.PATH ?? '', ...environment, ...changes };
    const { status, stdout } = spawnSync(process.execPath, [join(import.meta.dirname, 'main.ts')], { env });
    const lines = stdout.toString().trim().split('\n');
    return { status, last: JSON.parse(lines.at(-1) ?? '{}') };
  };

  it('gives up on a bucket that nobody makes, and says what the store answered', () => {
    const { status, last } = run({ WAIT_SECONDS: '1' });
    assert.equal(status, 1);
    assert.match(last.reason, /object store: GET current\.json answered \d+ \((InvalidAccessKeyId|NoSuchBucket)\)/);
  });

  it('publishes once', async () => {
    const bucket = { name: 'policy', readers: [], writers: ['policy-publisher'] };
    await reconcileObjectStore(store.admin, { users: ['policy-publisher'], buckets: [bucket] }, store.usersDir);
    const revision = revisionOf(compileCorpus());
    const first = run();
    assert.deepEqual([first.status, first.last.outcome, first.last.revision], [0, 'published', revision]);
    const second = run();
    assert.deepEqual([second.status, second.last.outcome, second.last.sequence], [0, 'unchanged', first.last.sequence]);
    const pointer = await new ObjectStoreBucket(store.bucket('policy', 'policy-publisher')).get('current.json');
    assert.ok(pointer !== undefined && pointer !== 'unchanged');
    assert.deepEqual(JSON.parse(pointer.content.toString()), { revision, key: `bundles/${revision}.tar.gz` });
  });

  it('names a variable that is missing, and a corpus that is not there', () => {
    assert.match(run({ PRIVATE_KEY_FILE: '' }).last.reason, /PRIVATE_KEY_FILE is not set/);
    assert.match(run({ CORPUS_FILE: '/nowhere' }).last.reason, /CORPUS_FILE \/nowhere is absent/);
  });
});
