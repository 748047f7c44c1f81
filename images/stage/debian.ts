import { join } from 'node:path';
import { run } from '../command.ts';
import { versions } from '../versions.ts';
import type { Stage } from './stage.ts';

/** Makes `rootfs.tar`: the smallest Debian that apt can extend, from signed packages. Needs root. */
export async function stageDebian({ folder, log }: Stage): Promise<void> {
  const excluded = ['doc', 'man', 'locale', 'info'].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
  const mirror = 'http://deb.debian.org/debian';
  const rootfs = join(folder, 'rootfs.tar');
  await run('mmdebstrap', ['--mode=root', '--variant=minbase', ...excluded, versions.debian, rootfs, mirror], { log });
}
