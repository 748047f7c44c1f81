import { cpSync, rmSync } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { startProgress } from '../../cluster/progress.ts';
import { buildToolchain, toolFamilies, toolPath } from '../../cluster/toolchain.ts';
import { run } from '../command.ts';
import type { Stage } from './stage.ts';

/** Compiles a program whose source is the image's own folder, and leaves only the program in the build context. */
export async function stageOwnProgram(name: string, { folder, log }: Stage): Promise<void> {
  const args = ['build', '-trimpath', '-ldflags', '-s -w', '-o', name, '.'];
  await run('go', args, { cwd: folder, log, env: { CGO_ENABLED: '0' } });
  for (const source of ['main.go', 'go.mod']) rmSync(join(folder, source));
}

/** Copies a program of the cluster's toolchain, building it first where it is not in the cache. */
export async function stageTool(name: string, { folder }: Stage): Promise<void> {
  await buildToolchain(
    startProgress(),
    toolFamilies.filter(({ binaries }) => name in binaries),
  );
  await copyFile(toolPath(name), join(folder, name));
}

/** Copies Temporal's versioned PostgreSQL schema from the very module that its server is built from. */
export async function stageTemporalSchema(target: string, { log, repository }: Stage): Promise<void> {
  const cwd = join(repository, 'cluster/toolchain/temporal');
  await run('go', ['mod', 'download', 'go.temporal.io/server'], { cwd, log });
  const module = (await run('go', ['list', '-m', '-f', '{{.Dir}}', 'go.temporal.io/server'], { cwd, log })).trim();
  for (const database of ['temporal', 'visibility']) {
    const versioned = `postgresql/v12/${database}/versioned`;
    await mkdir(join(target, versioned), { recursive: true });
    cpSync(join(module, 'schema', versioned), join(target, versioned), { recursive: true });
  }
  // The module cache is read-only, and so would be the copy.
  await run('chmod', ['-R', 'u+w,a+rX', target], { log });
}
