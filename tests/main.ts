/**
 * Runs every suite in turn against real servers and ends with `N passed, N failed`.
 * `node tests/main.ts [suite ...]` runs only the named ones. A file of Node's test runner that failed is run once more
 * by itself: on a busy machine a time limit may be missed. It counts by its second run, and is named at the end.
 */
import { spawn } from 'node:child_process';

interface Suite {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly cwd?: string;
  /** Reads the counts out of what the runner printed. */
  readonly count: (output: string) => Counts;
  /** Reads the files with failed tests out of what the runner printed, where single files can be run again. */
  readonly failedFiles?: (output: string) => readonly string[];
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
}

const sum = (output: string, pattern: RegExp): number =>
  [...output.matchAll(pattern)].reduce((total, match) => total + Number(match[1] ?? 1), 0);

const nodeTest = (output: string): Counts => ({
  passed: sum(output, /^ℹ pass (\d+)$/gm),
  failed: sum(output, /^ℹ fail (\d+)$/gm) + sum(output, /^ℹ cancelled (\d+)$/gm),
});
const failedFiles = (output: string): readonly string[] => [
  ...new Set([...output.matchAll(/^test at (\S+\.test\.ts):\d+:\d+$/gm)].map(([, file]) => file ?? '')),
];
const goTest = (output: string): Counts => ({
  passed: sum(output, /^ *--- PASS: /gm),
  failed: sum(output, /^ *--- FAIL: /gm),
});
const pytest = (output: string): Counts => ({
  passed: sum(output, /(\d+) passed/g),
  failed: sum(output, /(\d+) failed/g) + sum(output, /(\d+) error/g),
});

/** Without vet: with cold caches it would analyse hundreds of packages of others first, for minutes. */
const goTests = ['go', 'test', '-vet=off', '-v', './...'] as const;

const suites: readonly Suite[] = [
  { name: 'unit', command: ['npm', 'run', '--silent', 'test:unit'], count: nodeTest, failedFiles },
  { name: 'forward', command: goTests, cwd: 'cluster/forward', count: goTest },
  { name: 'network-policy', command: goTests, cwd: 'cluster/network-policy', count: goTest },
  { name: 'slm', command: ['bash', 'services/slm/test.sh'], count: pytest },
  { name: 'embeddings', command: ['bash', 'services/embeddings/test.sh'], count: pytest },
  { name: 'platform', command: ['make', '--silent', 'platform-test'], count: nodeTest, failedFiles },
];

interface Run {
  readonly counts: Counts;
  readonly output: string;
}

/** Files that passed only when they were run again. */
const secondTries: string[] = [];

async function runWithSecondTry(suite: Suite): Promise<Counts> {
  const { counts, output } = await run(suite);
  const files = counts.failed === 0 ? [] : (suite.failedFiles?.(output) ?? []);
  if (files.length === 0) return counts;
  const command = [process.execPath, '--test', '--test-reporter=spec', '--test-concurrency=1', ...files] as const;
  const again = await run({ name: `${suite.name}, once more: ${files.join(', ')}`, command, count: suite.count });
  if (again.counts.failed === 0) secondTries.push(...files);
  return { passed: counts.passed + counts.failed - again.counts.failed, failed: again.counts.failed };
}

function run(suite: Suite): Promise<Run> {
  console.log(`\n== ${suite.name}`);
  const [program, ...args] = suite.command;
  const child = spawn(program, args, { cwd: suite.cwd, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    process.stdout.write(text);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ counts: verdict(suite, output, code), output }));
  });
}

/** A suite that ended badly, or that ran nothing, counts as a failure even if it counted none itself. */
function verdict(suite: Suite, output: string, code: number | null): Counts {
  const counts = suite.count(output);
  const silent = counts.failed === 0 && (code !== 0 || counts.passed === 0);
  if (silent)
    console.error(`suite ${suite.name}: exit code ${code}, ${counts.passed} tests passed: counted as a failure`);
  return silent ? { passed: counts.passed, failed: 1 } : counts;
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !suites.some((suite) => suite.name === name));
if (unknown.length > 0) {
  console.error(`unknown suite ${unknown.join(', ')}; there are: ${suites.map((suite) => suite.name).join(', ')}`);
  process.exit(2);
}

let passed = 0;
let failed = 0;
for (const suite of suites.filter(({ name }) => wanted.length === 0 || wanted.includes(name))) {
  const started = performance.now();
  const counts = await runWithSecondTry(suite);
  passed += counts.passed;
  failed += counts.failed;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`== ${suite.name}: ${counts.passed} passed, ${counts.failed} failed, ${seconds} s`);
}
if (secondTries.length > 0) console.log(`\npassed only at the second try: ${secondTries.join(', ')}`);
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
