import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lockedContent, readLock } from './lock.ts';
import { repository } from './tag.ts';

const lock = readLock(repository);
const withVersion = (folder: string) => ({
  packages: { ...lock.packages, [folder]: { ...lock.packages[folder], version: '0.0.0-other' } },
});

test("a service's image follows what it runs with, also through a workspace that it uses", () => {
  const before = lockedContent(lock, 'services/gateway');
  for (const folder of ['node_modules/hono', 'node_modules/pino']) {
    assert.notDeepEqual(lockedContent(withVersion(folder), 'services/gateway'), before, folder);
  }
});

test('a tool of developers changes no image', () => {
  const before = lockedContent(lock, 'services/gateway');
  assert.deepEqual(lockedContent(withVersion('node_modules/@biomejs/biome'), 'services/gateway'), before);
});
