import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { corpusFolder, ruleFiles, stageCorpus } from '../bundle/corpus.ts';
import { type Mutant, mutantsOf } from './mutants.ts';
import { runTests } from './run-tests.ts';

/** What became of the mutants. */
export interface MutationReport {
  readonly killed: number;
  readonly survivors: readonly Mutant[];
  /** Mutants that do not compile prove nothing and do not count. */
  readonly stillborn: number;
  /** Share of the living mutants that a test noticed, percent. */
  readonly score: number;
}

/** Options of {@link mutate}. */
export interface MutationOptions {
  /** @default the corpus */
  readonly source?: string;
  /** Take every n-th mutant only, beginning with the first. @default 1, all */
  readonly every?: number;
  /** Files of rules, relative to the corpus. @default all */
  readonly files?: readonly string[];
  /** How many runs of OPA at once. @default 2 */
  readonly parallel?: number;
  readonly onMutant?: (mutant: Mutant, outcome: string, done: number, of: number) => void;
}

/** Lets the tests judge every mutant of the rules. */
export async function mutate(options: MutationOptions = {}): Promise<MutationReport> {
  const { source = corpusFolder, every = 1, parallel = 2, files = ruleFiles(source) } = options;
  const all = files.flatMap((file) => mutantsOf(file, readFileSync(join(source, file), 'utf8'), source));
  const chosen = all.filter((_, index) => index % every === 0);
  const queue = [...chosen];
  const survivors: Mutant[] = [];
  let [killed, stillborn] = [0, 0];
  const work = async () => {
    const folder = stageCorpus(source, { tests: true });
    try {
      for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
        const outcome = await judge(mutant, source, folder);
        if (outcome === 'failed') killed += 1;
        else if (outcome === 'broken') stillborn += 1;
        else survivors.push(mutant);
        options.onMutant?.(mutant, outcome, killed + stillborn + survivors.length, chosen.length);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  return { killed, survivors, stillborn, score: (100 * killed) / Math.max(1, killed + survivors.length) };
}

async function judge({ file, start, end, after }: Mutant, source: string, folder: string) {
  const text = readFileSync(join(source, file), 'utf8');
  writeFileSync(join(folder, file), text.slice(0, start) + after + text.slice(end));
  const { outcome } = await runTests(folder, testsOf(file));
  writeFileSync(join(folder, file), text);
  return outcome;
}

/** Tests that can notice a change of the file. */
function testsOf(file: string): string {
  const room = file.split('/')[0] ?? '';
  if (room === 'lib') return 'soma\\.(lib|gateway|orchestrator|tools|data|training)_test';
  return room === 'deploy' ? 'soma\\.deploy' : `soma\\.${room}_test`;
}
