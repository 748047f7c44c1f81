import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Manifest } from '@somagent/components';
import type { RegisteredObject } from './monitor.ts';
import { render } from './render.ts';

const directory = await mkdtemp(join(tmpdir(), 'somagent-render-'));
after(() => rm(directory, { recursive: true }));

function object(region: string, manifest: Manifest, secrets: readonly string[] = []): RegisteredObject {
  return {
    urn: manifest.metadata.name,
    manifest,
    secrets,
    components: [region, `${region}-x`],
    provider: { name: region },
  };
}

const config = (name: string, value: string): Manifest => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'n' },
  data: { value },
});
const write = (objects: readonly RegisteredObject[]) => render({ objects, outputs: {}, secretOutputs: [] }, directory);

test('one file per object, per region; only what changed is written, what is gone is removed', async () => {
  const first = [object('east', config('a', '1')), object('east', config('b', '1')), object('west', config('a', '1'))];
  assert.deepEqual(write(first), { files: 3, changed: 3, removed: 0 });
  assert.deepEqual((await readdir(join(directory, 'east'))).toSorted(), [
    '10-configmap-n-a.yaml',
    '10-configmap-n-b.yaml',
  ]);
  assert.deepEqual(write(first), { files: 3, changed: 0, removed: 0 });
  assert.deepEqual(write([object('east', config('a', '2'))]), { files: 1, changed: 1, removed: 2 });
  const text = await readFile(join(directory, 'east', '10-configmap-n-a.yaml'), 'utf8');
  assert.equal(text, 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: n\ndata:\n  value: "2"\n');
});

test('a secret value is never written', () => {
  assert.throws(
    () => write([object('east', config('a', 's3cret'), ['data.value'])]),
    /ConfigMap n\/a has a secret value at data\.value/,
  );
  const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's', namespace: 'n' }, data: { a: 'Yg==' } };
  assert.throws(() => write([object('east', secret)]), /Secret n\/s holds data/);
});
