import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { stringify } from 'yaml';
import { loadKubeconfig } from './kubeconfig.ts';
import { whichKubeconfig } from './which-kubeconfig.ts';

const root = mkdtempSync(join(tmpdir(), 'somagent-kubeconfig-'));
after(() => rmSync(root, { recursive: true }));

const local = join(root, '.soma', 'kubeconfig');
mkdirSync(join(root, '.soma'));
writeFileSync(
  local,
  stringify({
    clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:6443' } }],
    users: [{ name: 'u', user: { token: 'of this test' } }],
    contexts: ['one', 'two'].map((name) => ({ name, context: { cluster: 'c', user: 'u' } })),
    'current-context': 'one',
  }),
);

test('the local cluster is used unless another one is asked for', () => {
  assert.equal(whichKubeconfig({}, root), local);
  assert.equal(whichKubeconfig({ kubeconfig: 'mine' }, root), 'mine');
  assert.equal(whichKubeconfig({ kubeconfig: 'mine', context: 'c' }, root), 'mine');
  assert.equal(whichKubeconfig({ context: 'c' }, root), undefined);
  assert.equal(whichKubeconfig({}, join(root, 'absent')), undefined);
});

test('a context that is asked for becomes the current one', () => {
  assert.equal(loadKubeconfig(local, undefined).getCurrentContext(), 'one');
  assert.equal(loadKubeconfig(local, 'two').getCurrentContext(), 'two');
});

test('an absent file or context is named with what there is', () => {
  assert.throws(() => loadKubeconfig(local, 'three'), {
    message: "context 'three' is not in the kubeconfig; it has one, two. Pass --context with one of these",
  });
  assert.throws(() => loadKubeconfig(join(root, 'absent'), undefined), {
    message: /^no kubeconfig at .*absent; start the local cluster with 'make up', or pass --kubeconfig$/,
  });
});
