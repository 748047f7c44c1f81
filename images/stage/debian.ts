import { join } from 'node:path';
import { run } from '../command.ts';
import { versions } from '../versions.ts';
import type { Stage } from './stage.ts';

/**
 * Makes `rootfs.tar`: the smallest Debian that apt can extend, from signed packages. No mirror is named: mmdebstrap then
 * takes Debian's own, with the updates and the security fixes of the release. Needs root.
 */
export async function stageDebian({ folder, log }: Stage): Promise<void> {
  const excluded = ['doc', 'man', 'locale', 'info'].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
  const rootfs = join(folder, 'rootfs.tar');
  await run('mmdebstrap', ['--mode=root', '--variant=minbase', ...excluded, versions.debian, rootfs], { log });
}
