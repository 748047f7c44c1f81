import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from '../cache.ts';
import { run } from '../command.ts';
import { versions } from '../versions.ts';
import { mavenArtifact } from './maven.ts';
import type { Stage } from './stage.ts';

/** Folder of Apicurio Registry's distribution, fetched by Maven, checked against the pinned digest, kept by content. */
export async function apicurioRegistry(log: string): Promise<string> {
  const { apicurio, apicurioSha256 } = versions;
  return cached('apicurio', apicurioSha256.slice(0, 16), async (path) => {
    await mkdir(path, { recursive: true });
    const artifact = `io.apicurio:apicurio-registry-app:${apicurio}:tar.gz:all`;
    const archive = await mavenArtifact({ artifact, sha256: apicurioSha256, folder: path, log });
    await run('tar', ['-xzf', archive, '-C', path], { log });
    await run('rm', [archive], { log });
  });
}

/** Leaves the distribution as `registry/` in the build context. */
export async function stageApicurio({ folder, log }: Stage): Promise<void> {
  await run('cp', ['-al', await apicurioRegistry(log), join(folder, 'registry')], { log });
}
