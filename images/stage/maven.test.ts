import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { repository } from '../tag.ts';
import { checkPins } from './maven.ts';

const folder = mkdtempSync(join(tmpdir(), 'maven-test-'));
const digest = (content: string): string => createHash('sha256').update(content).digest('hex');
const pins = `${digest('one')}  one.jar\n${digest('two')}  two.jar\n`;

beforeEach(() => {
  writeFileSync(join(folder, 'one.jar'), 'one');
  writeFileSync(join(folder, 'two.jar'), 'two');
});
after(() => rmSync(folder, { recursive: true, force: true }));

test('files that are all pinned and equal are taken', () => {
  checkPins(folder, pins);
});

test('a file with other content is refused, with both digests', () => {
  writeFileSync(join(folder, 'two.jar'), 'tampered');
  const message = `two.jar: SHA-256 is ${digest('tampered')}, pinned is ${digest('two')}`;
  assert.throws(() => checkPins(folder, pins), { message });
});

test('a file that nobody pinned is refused', () => {
  writeFileSync(join(folder, 'three.jar'), 'three');
  assert.throws(() => checkPins(folder, pins), {
    message: 'three.jar is not pinned; look at it, then add it to jars.sha256',
  });
  rmSync(join(folder, 'three.jar'));
});

test('a pinned file that did not come is missed', () => {
  rmSync(join(folder, 'one.jar'));
  assert.throws(() => checkPins(folder, pins), {
    message: 'one.jar is pinned, but Maven did not bring it',
  });
});

test('the version of Kafka in the image is the one that Strimzi is told', () => {
  const pom = readFileSync(join(repository, 'images/kafka/pom.xml'), 'utf8');
  const strimzi = readFileSync(join(repository, 'constructs/kafka/strimzi.ts'), 'utf8');
  const version = /<artifactId>kafka_2\.13<\/artifactId>\s*<version>([\d.]+)</.exec(pom)?.[1];
  assert.match(version ?? '', /^\d+\.\d+\.\d+$/);
  assert.ok(strimzi.includes(`const VERSION = '${version}'`), `constructs/kafka/strimzi.ts does not say ${version}`);
});
