/**
 * Every benchmark that leaves the running platform alone, one after the other: `node tests/bench/main.ts`.
 * The start of the cluster takes it down and is a command of its own: `make bench-cluster`.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');

const benchmarks = [
  { title: 'Turns of sessions', file: 'tests/bench/session.ts' },
  { title: 'Audit log', file: 'tests/bench/audit.ts' },
  { title: 'A governed request', file: 'tests/bench/governed.ts' },
  { title: 'What the gateway adds to a model', file: 'tests/bench/chat.ts' },
  { title: 'Budgets', file: 'tests/bench/budget.ts' },
  { title: 'Workers and replicas under a load that comes and goes', file: 'tests/bench/scaling.ts' },
  { title: 'Vectors and embeddings', file: 'tests/bench/vectors.ts' },
  { title: 'Memory of the platform', file: 'tests/bench/memory.ts' },
  { title: 'Bridge and render 2,000 objects', file: 'components/bridge/benchmark.ts' },
];

let failed = false;
for (const { title, file } of benchmarks) {
  console.log(`\n${title}  (node ${file})`);
  // A process each: CPU time is counted per process, and memory of one must not slow the next.
  const { status } = spawnSync(process.execPath, [file], { cwd: root, stdio: 'inherit' });
  failed ||= status !== 0;
}
process.exitCode = failed ? 1 : 0;
