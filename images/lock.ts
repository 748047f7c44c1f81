import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One entry of `package-lock.json` (lockfileVersion 3), as far as it is read here. */
interface LockedPackage {
  readonly version?: string;
  readonly integrity?: string;
  /** Folder of a workspace, where `link` is true. */
  readonly resolved?: string;
  readonly link?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** `package-lock.json`: packages by their folder, relative to the repository. */
export interface Lock {
  readonly packages: Readonly<Record<string, LockedPackage>>;
}

/** Reads the lock file of a repository. */
export const readLock = (repository: string): Lock =>
  JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as Lock;

/** A package that a lock file does not have: `optional` when whoever asks for it does without. */
export interface MissingPackage {
  readonly name: string;
  readonly from: string;
  readonly optional: boolean;
}

/**
 * Folders (`node_modules/…`) of the named packages and of all that they depend on, sorted. Development dependencies do
 * not count; a workspace counts with what it depends on.
 * @param missing called for each package that is not there, by the lock file or by `isPresent`
 */
export function dependencyFolders(
  lock: Lock,
  names: readonly string[],
  missing: (absent: MissingPackage) => void,
  isPresent: (folder: string) => boolean = () => true,
): string[] {
  const found = new Set<string>();
  const visit = (name: string, from: string, optional: boolean): void => {
    const path = resolvePackage(lock, name, from);
    if (path === undefined || !isPresent(path)) {
      missing({ name, from, optional });
      return;
    }
    if (found.has(path)) return;
    found.add(path);
    const entry = lock.packages[path] ?? {};
    const { dependencies = {}, optionalDependencies = {} } = entry.link
      ? (lock.packages[entry.resolved ?? ''] ?? {})
      : entry;
    for (const each of Object.keys(dependencies)) visit(each, path, each in optionalDependencies);
    for (const each of Object.keys(optionalDependencies)) visit(each, path, true);
  };
  for (const name of names) visit(name, '', false);
  return [...found].sort();
}

/** What the lock file says of all that a workspace needs at run time: it changes when one of these packages does. */
export function lockedContent(lock: Lock, workspace: string): readonly unknown[] {
  const folders = runtimeFolders(lock, workspace);
  return folders.map((folder) => [folder, lock.packages[folder]?.version, lock.packages[folder]?.integrity]);
}

/** Folders of the other workspaces that a workspace needs at run time, such as `services/kit`. */
export function linkedWorkspaces(lock: Lock, workspace: string): string[] {
  const entries = runtimeFolders(lock, workspace).map((folder) => lock.packages[folder]);
  return entries.flatMap((entry) => (entry?.link && entry.resolved !== undefined ? [entry.resolved] : []));
}

function runtimeFolders(lock: Lock, workspace: string): string[] {
  return dependencyFolders(lock, Object.keys(lock.packages[workspace]?.dependencies ?? {}), ignoreMissing);
}

/** A package of another system has no entry: it decides nothing here. */
const ignoreMissing = () => undefined;

/** Node's own search: the folder itself, then each folder above it. */
function resolvePackage(lock: Lock, name: string, from: string): string | undefined {
  for (let folder = from; ; ) {
    const path = folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (path in lock.packages) return path;
    if (folder === '') return undefined;
    const above = folder.lastIndexOf('/node_modules/');
    folder = above === -1 ? '' : folder.slice(0, above);
  }
}
