import { createHash, type Hash } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ImageName, imageDefinition } from './catalogue.ts';
import { linkedWorkspaces, lockedContent, readLock } from './lock.ts';

/** The repository that the images are built from. */
export const repository = fileURLToPath(new URL('..', import.meta.url));

/** Made by tools or used only by developers: none of it decides what an image contains. */
const ignoredNames = new Set(['node_modules', 'dist', '__pycache__', 'README.md', 'tests', 'testing', 'histories']);
const ignoredEndings = ['.test.ts', '_test.go', '_test.rego', '.pyc', '.gguf', '.log'];

/** True for a name in an input folder that does not decide what an image contains. */
export function isIgnored(name: string): boolean {
  return name.startsWith('.') || ignoredNames.has(name) || ignoredEndings.some((ending) => name.endsWith(ending));
}

/**
 * Tag of an image: 16 hex digits of the SHA-256 of all that decides its content (Containerfile, sources, lock files,
 * pinned versions, the parent's tag), computed from the working tree in milliseconds. Equal content, equal tag.
 */
export function imageTag(name: ImageName, root: string = repository): string {
  const { parent, inputs, arguments: given = {} } = imageDefinition(name);
  const hash = createHash('sha256');
  hash.update(JSON.stringify([name, parent === undefined ? null : imageTag(parent, root), Object.entries(given)]));
  for (const input of [`images/${name}`, ...inputs]) hashInput(hash, root, input);
  return hash.digest('hex').slice(0, 16);
}

/** Where an image is found: `<registry>/somagent/<name>:<tag>`. */
export function imageReference(name: ImageName, options: { readonly registry: string }): string {
  return `${options.registry}/somagent/${name}:${imageTag(name)}`;
}

/**
 * An input is a file, a folder, `file.json#path.to.value` where only one value of a file matters, or
 * `package-lock.json#<workspace>` for all that a workspace needs at run time, other workspaces included.
 */
function hashInput(hash: Hash, root: string, input: string): void {
  const [path = '', pointer] = input.split('#');
  const absolute = join(root, path);
  // A room that is not built yet has no content; its image gets a new tag when it does.
  if (!existsSync(absolute)) {
    hash.update(JSON.stringify([input, 'absent']));
  } else if (pointer === undefined) {
    hashPath(hash, absolute, path);
  } else if (path === 'package-lock.json') {
    const lock = readLock(root);
    hash.update(JSON.stringify([input, lockedContent(lock, pointer)]));
    for (const folder of linkedWorkspaces(lock, pointer)) hashInput(hash, root, folder);
  } else {
    hash.update(JSON.stringify([input, valueAt(absolute, pointer)]));
  }
}

function valueAt(file: string, pointer: string): unknown {
  let value: unknown = JSON.parse(readFileSync(file, 'utf8'));
  for (const key of pointer.split('.')) value = (value as Record<string, unknown> | undefined)?.[key];
  return value;
}

function hashPath(hash: Hash, absolute: string, path: string): void {
  const stat = lstatSync(absolute);
  if (stat.isDirectory()) {
    for (const name of readdirSync(absolute).sort()) {
      if (!isIgnored(name)) hashPath(hash, join(absolute, name), `${path}/${name}`);
    }
    return;
  }
  const content = stat.isSymbolicLink() ? readlinkSync(absolute) : readFileSync(absolute);
  // The length keeps neighbours apart; the execute bit is the only part of the mode that git keeps.
  hash.update(JSON.stringify([path, content.length, (stat.mode & 0o100) !== 0])).update(content);
}
