import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../command.ts';
import { isIgnored } from '../tag.ts';
import { stagePython } from './python.ts';
import { stageService } from './service.ts';
import type { Stage } from './stage.ts';

/** The service, the job that it runs with its Python, and the model and text that it starts from. */
export async function stageTraining(stage: Stage): Promise<void> {
  const { folder, log, repository } = stage;
  await stageService('training', stage);
  await stagePython(stage);
  const slm = join(repository, 'services/slm');
  const filter = (path: string): boolean => !isIgnored(path.slice(path.lastIndexOf('/') + 1));
  const copy = (from: string, to: string) => cpSync(from, join(folder, 'app', to), { recursive: true, filter });
  copy(join(repository, 'services/training/finetune'), 'python/finetune');
  copy(join(slm, 'training'), 'python/training');
  copy(join(slm, 'somagent_slm'), 'python/somagent_slm');
  copy(join(slm, 'corpus'), 'corpus');
  await run('sh', [join(slm, 'build-model.sh'), join(folder, 'bundled.gguf')], { log, cwd: repository });
}
