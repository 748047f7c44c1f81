import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { familyDigest, type ToolFamily, toolFamilies, toolPath } from './toolchain.ts';

function family(folder: string, changes: Partial<ToolFamily> = {}): ToolFamily {
  return { name: 'sample', folder, target: '.', binaries: { sample: 'sample' }, ...changes };
}

test('the digest changes with all that decides a program, and with nothing else', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'toolchain-'));
  context.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'go.mod'), 'module sample\n');
  writeFileSync(join(folder, 'main.go'), 'package main\n');
  const digest = familyDigest(family(folder), 'go1.26.8');

  writeFileSync(join(folder, 'main_test.go'), 'package main\n');
  writeFileSync(join(folder, 'README.md'), '# sample\n');
  assert.equal(familyDigest(family(folder), 'go1.26.8'), digest);

  assert.notEqual(familyDigest(family(folder), 'go1.26.9'), digest);
  assert.notEqual(familyDigest(family(folder, { ldflags: ['-X a.b=c'] }), 'go1.26.8'), digest);
  writeFileSync(join(folder, 'main.go'), 'package main \n');
  assert.notEqual(familyDigest(family(folder), 'go1.26.8'), digest);
});

test('no two families build a program of the same name', () => {
  const names = toolFamilies.flatMap(({ binaries }) => Object.keys(binaries));
  assert.deepEqual(names, [...new Set(names)]);
});

test('an unknown program is refused with the known ones', () => {
  assert.throws(() => toolPath('kubeadm'), /no family builds "kubeadm"; known programs: kube-apiserver, .*forward/);
});
