import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from '../cache.ts';
import { run } from '../command.ts';

/** Version of the plugin that copies: Maven would take the newest otherwise. */
const plugin = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1';

/** What Maven is asked for. */
export interface MavenRequest {
  /** Folder with `pom.xml` and `jars.sha256` (as `sha256sum` writes it), which names and pins every file. */
  readonly folder: string;
  readonly log: string;
}

/**
 * Folder with exactly the files that `jars.sha256` pins, fetched by Maven once and kept by content.
 * @throws Error that names the file which is missing, not pinned or different.
 */
export function mavenJars({ folder, log }: MavenRequest): Promise<string> {
  const pom = join(folder, 'pom.xml');
  const pins = readFileSync(join(folder, 'jars.sha256'), 'utf8');
  const key = createHash('sha256').update(readFileSync(pom)).update(pins).digest('hex').slice(0, 16);
  return cached('maven', key, async (path) => {
    await mkdir(path, { recursive: true });
    const output = [`-DoutputDirectory=${path}`, '-DincludeScope=runtime'];
    await run('mvn', ['-q', '-B', '-f', pom, `${plugin}:copy-dependencies`, ...output], { log });
    checkPins(path, pins);
  });
}

/** One file to fetch. */
export interface ArtifactRequest {
  /** `group:artifact:version:type[:classifier]`. */
  readonly artifact: string;
  readonly sha256: string;
  /** Folder that takes it. */
  readonly folder: string;
  readonly log: string;
}

/** Fetches one file by Maven. @returns its path. @throws Error when its digest is not the pinned one. */
export async function mavenArtifact({ artifact, sha256, folder, log }: ArtifactRequest): Promise<string> {
  const [, name = '', version = '', type = '', classifier] = artifact.split(':');
  await run('mvn', ['-q', '-B', `${plugin}:copy`, `-Dartifact=${artifact}`, `-DoutputDirectory=${folder}`], { log });
  const file = `${name}-${version}${classifier === undefined ? '' : `-${classifier}`}.${type}`;
  checkPins(folder, `${sha256}  ${file}\n`);
  return join(folder, file);
}

/** Compares the files of a folder with their pins, both ways. */
export function checkPins(folder: string, pins: string): void {
  const pinned = new Map(pins.split('\n').flatMap((line) => pinOf(line)));
  for (const [name, expected] of pinned) {
    if (!existsSync(join(folder, name))) throw new Error(`${name} is pinned, but Maven did not bring it`);
    const digest = createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex');
    if (digest !== expected) throw new Error(`${name}: SHA-256 is ${digest}, pinned is ${expected}`);
  }
  const stray = readdirSync(folder).find((name) => !pinned.has(name));
  if (stray !== undefined) throw new Error(`${stray} is not pinned; look at it, then add it to jars.sha256`);
}

function pinOf(line: string): [string, string][] {
  const match = /^([0-9a-f]{64}) [ *](\S+)$/.exec(line);
  return match?.[1] === undefined || match[2] === undefined ? [] : [[match[2], match[1]]];
}
