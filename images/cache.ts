import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** Everything that building images leaves on this machine: `~/.cache/somagent/images`. */
export function imageCache(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'somagent/images');
}

/**
 * Path of a file or folder that `make` writes once. It is made under another name and renamed when it is whole, so that
 * a killed build leaves nothing half-done under the final name.
 */
export async function cached(kind: string, key: string, make: (path: string) => Promise<void>): Promise<string> {
  const path = join(imageCache(), kind, key);
  if (existsSync(path)) return path;
  const making = join(dirname(path), `.making-${process.pid}-${key}`);
  mkdirSync(dirname(path), { recursive: true });
  rmSync(making, { recursive: true, force: true });
  try {
    await make(making);
    if (!existsSync(path)) renameSync(making, path);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
  return path;
}
