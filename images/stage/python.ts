import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cached } from '../cache.ts';
import { run } from '../command.ts';
import { versions } from '../versions.ts';
import type { Stage } from './stage.ts';

/**
 * Installs the image's `requirements.txt` (pinned, with hashes, complete) into `python/`, as wheels for the image's
 * Python and not for this machine's. A pure Python source distribution is built here.
 */
export async function stagePython({ folder, log }: Stage): Promise<void> {
  const requirements = join(folder, 'requirements.txt');
  const key = createHash('sha256')
    .update(versions.python)
    .update(readFileSync(requirements))
    .digest('hex')
    .slice(0, 16);
  const platforms = ['manylinux2014', 'manylinux_2_17', 'manylinux_2_27', 'manylinux_2_28'].map(
    (each) => `${each}_x86_64`,
  );
  const installed = await cached('python', key, async (path) => {
    const args = ['-m', 'pip', 'install', '--quiet', '--require-hashes', '--no-deps', '--no-compile', '--target', path];
    const target = ['--implementation', 'cp', '--python-version', versions.python];
    const wanted = platforms.flatMap((platform) => ['--platform', platform]);
    await run('python3', [...args, ...target, ...wanted, '--requirement', requirements], { log });
  });
  // Hard links: half a gigabyte need not be written twice.
  await run('cp', ['-al', installed, join(folder, 'python')], { log });
}
