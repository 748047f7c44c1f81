import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packBundle } from '@somagent/policy/bundle.ts';
import { startProgress } from '../../cluster/progress.ts';
import { buildToolchain, toolFamilies } from '../../cluster/toolchain.ts';
import { compileCorpus, ruleFiles } from '../../policies/bundle/corpus.ts';
import { stageTool } from './go.ts';
import { stageService } from './service.ts';
import type { Stage } from './stage.ts';

/** The publisher, and the corpus compiled but not signed: the key is in the cluster only. */
export async function stagePolicy(stage: Stage): Promise<void> {
  await buildToolchain(
    startProgress(),
    toolFamilies.filter(({ name }) => name === 'opa'),
  );
  await stageService('policy', stage);
  writeFileSync(join(stage.folder, 'app/corpus.tar.gz'), await packBundle(compileCorpus()));
}

/** OPA and the corpus as rules, for admission. */
export async function stageOpa(stage: Stage): Promise<void> {
  await stageTool('opa', stage);
  const corpus = join(stage.repository, 'policies');
  for (const file of [...ruleFiles(corpus), 'facts/data.json']) {
    const target = join(stage.folder, 'policies', file);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(join(corpus, file), target);
  }
}
