import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { corpusFolder, opaPath, stageCorpus } from '../bundle/corpus.ts';

/** How a run of `opa test` ended. */
export interface TestRun {
  /** `broken`: the rules do not compile. */
  readonly outcome: 'passed' | 'failed' | 'broken';
  readonly output: string;
}

/** Runs `opa test` in a folder laid out as a bundle. @param only Regular expression of the tests to run. */
export async function runTests(folder: string, only = '.*', extra: readonly string[] = []): Promise<TestRun> {
  const { code, output } = await execute(
    ['test', '--bundle', '.', '--run', only, '--timeout', '60s', ...extra],
    folder,
  );
  const outcome = code === 0 ? 'passed' : code === 2 ? 'failed' : 'broken';
  return { outcome, output };
}

function execute(args: readonly string[], cwd: string): Promise<{ code: number | null; output: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ code: number | null; output: string }>();
  const child = spawn(opaPath(), args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  child.once('error', reject);
  child.once('close', (code) => resolve({ code, output: Buffer.concat(chunks).toString() }));
  return promise;
}

/** Lines of rules that no test reaches, by file; and how many tests ran. */
export interface Coverage {
  readonly percent: number;
  readonly missed: Readonly<Record<string, readonly string[]>>;
}

interface CoverageReport {
  readonly coverage: number;
  readonly files: Readonly<
    Record<string, { readonly not_covered?: readonly { start: { row: number }; end: { row: number } }[] }>
  >;
}

/** Runs all tests of the corpus and measures the lines of the rules that they reach. @throws Error when a test fails. */
export async function measureCoverage(source = corpusFolder): Promise<Coverage> {
  const folder = stageCorpus(source, { tests: true });
  try {
    const run = await runTests(folder);
    if (run.outcome !== 'passed') throw new Error(`opa test ${run.outcome}:\n${run.output}`);
    const { output } = await runTests(folder, '.*', ['--coverage', '--format', 'json']);
    const report = JSON.parse(output) as CoverageReport;
    const rules = Object.entries(report.files).filter(([file]) => !file.endsWith('_test.rego'));
    const missed = rules.flatMap(([file, { not_covered: lines = [] }]) =>
      lines.length === 0 ? [] : [[file, lines.map(({ start, end }) => `${start.row}-${end.row}`)] as const],
    );
    return {
      percent: missed.length === 0 ? 100 : Math.min(report.coverage, 99.99),
      missed: Object.fromEntries(missed),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
