import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../command.ts';
import { isIgnored } from '../tag.ts';
import type { Stage } from './stage.ts';

/** Adds the serving code and the model that our own command trains on our own documentation. */
export async function stageSlm({ folder, log, repository }: Stage): Promise<void> {
  const slm = join(repository, 'services/slm');
  const filter = (path: string): boolean => !isIgnored(path.slice(path.lastIndexOf('/') + 1));
  cpSync(join(slm, 'somagent_slm'), join(folder, 'app/somagent_slm'), { recursive: true, filter });
  await run('sh', [join(slm, 'build-model.sh'), join(folder, 'bundled.gguf')], { log, cwd: repository });
}
