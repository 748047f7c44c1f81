import assert from 'node:assert/strict';
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { imageDefinition, imageName, imageNames, withParents } from './catalogue.ts';
import { linkedWorkspaces, readLock } from './lock.ts';
import { packageFolders } from './stage/service.ts';
import { imageReference, imageTag, repository } from './tag.ts';

let copy: string;

/** The files that tags are made from, without the installed packages. */
before(() => {
  copy = mkdtempSync(join(tmpdir(), 'images-test-'));
  const lock = readLock(repository);
  const inputs = imageNames.flatMap((name) => [
    `images/${name}`,
    ...imageDefinition(name).inputs,
    ...linkedWorkspaces(lock, `services/${name}`),
  ]);
  for (const input of new Set(inputs.map((each) => each.split('#')[0] ?? each))) {
    const filter = (path: string): boolean => !path.includes('node_modules');
    cpSync(join(repository, input), join(copy, input), { recursive: true, filter });
  }
});
after(() => rmSync(copy, { recursive: true, force: true }));

const tags = (root: string): Record<string, string> =>
  Object.fromEntries(imageNames.map((name) => [name, imageTag(name, root)]));

/** Names of the images whose tag a change of the copy changes. */
function changedBy(change: () => void): string[] {
  const then = tags(copy);
  change();
  const now = tags(copy);
  return imageNames.filter((name) => then[name] !== now[name]);
}

test('equal trees have equal tags, of 16 hex digits, and all differ', () => {
  assert.deepEqual(tags(copy), tags(repository));
  assert.equal(new Set(Object.values(tags(repository))).size, imageNames.length);
  for (const tag of Object.values(tags(repository))) assert.match(tag, /^[0-9a-f]{16}$/);
});

test('a changed parent changes its children and nobody else', () => {
  const changed = changedBy(() => appendFileSync(join(copy, 'images/node/Containerfile'), '# changed\n'));
  assert.deepEqual(
    changed,
    imageNames.filter((name) => withParents([name]).includes('node')),
  );
});

test('a changed source changes only the image made from it', () => {
  const changed = changedBy(() => writeFileSync(join(copy, 'services/gateway/new.ts'), ''));
  assert.deepEqual(changed, ['gateway']);
});

test('a changed workspace changes the images of the services that use it', () => {
  const changed = changedBy(() => writeFileSync(join(copy, 'services/orchestrator/new.ts'), ''));
  assert.deepEqual(changed, ['gateway', 'orchestrator']);
});

test('moving a line between two files changes the tag', () => {
  writeFileSync(join(copy, 'images/pause/a'), 'xy');
  writeFileSync(join(copy, 'images/pause/b'), 'z');
  const changed = changedBy(() => {
    writeFileSync(join(copy, 'images/pause/a'), 'x');
    writeFileSync(join(copy, 'images/pause/b'), 'yz');
  });
  assert.deepEqual(changed, ['pause']);
});

test('tests, documentation and what tools leave behind change nothing', () => {
  const changed = changedBy(() => {
    writeFileSync(join(copy, 'services/gateway/new.test.ts'), 'x');
    writeFileSync(join(copy, 'services/gateway/README.md'), 'x');
    mkdirSync(join(copy, 'services/gateway/node_modules'));
    writeFileSync(join(copy, 'services/gateway/node_modules/x'), 'x');
  });
  assert.deepEqual(changed, []);
});

test('of package.json only the version of Node decides the node image', () => {
  const path = join(copy, 'package.json');
  const text = readFileSync(path, 'utf8');
  assert.deepEqual(
    changedBy(() => writeFileSync(path, text.replace('"description"', '"note": "x", "description"'))),
    [],
  );
  const other = text.replace(/("node": ")24\./, '$124.9');
  assert.ok(changedBy(() => writeFileSync(path, other)).includes('node'));
});

test('an unknown image is refused with the names there are', () => {
  assert.throws(() => imageName('postgress'), /unknown image "postgress"; known images: .*postgres, temporal/);
});

test('parents come first, once', () => {
  assert.deepEqual(withParents(['gateway', 'bootstrap']), ['debian', 'base', 'node', 'gateway', 'bootstrap']);
});

test('a reference is registry, repository and tag', () => {
  const expected = `127.0.0.1:5000/somagent/base:${imageTag('base')}`;
  assert.equal(imageReference('base', { registry: '127.0.0.1:5000' }), expected);
});

test('a staged package comes with all it depends on', () => {
  const folders = packageFolders(['esbuild'], repository);
  assert.ok(folders.includes('node_modules/esbuild'));
  assert.ok(
    folders.some((folder) => folder.startsWith('node_modules/@esbuild/linux-')),
    folders.join(),
  );
  assert.throws(() => packageFolders(['no-such-package'], repository), /"no-such-package".*run npm ci/);
});

test('the model server is imaged with the versions it is tested with', () => {
  const lines = (path: string): string[] =>
    readFileSync(join(repository, path), 'utf8')
      .split('\n')
      .filter((line) => line.includes('=='))
      .map((line) => (line.split(' ')[0] ?? '').toLowerCase().replaceAll('_', '-'))
      .sort();
  assert.deepEqual(lines('images/ray-slm/requirements.txt'), lines('services/slm/requirements-serve.txt'));
});
