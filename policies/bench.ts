import { CompiledPolicy } from '@somagent/policy/compiled-policy.ts';
import { requestQuestion } from './agreement/questions.ts';
import { Random } from './agreement/random.ts';
import { compileCorpus } from './bundle/corpus.ts';

/** Time of `evaluate`, microseconds. */
export interface EvaluationTimes {
  readonly evaluations: number;
  readonly p50: number;
  readonly p99: number;
  /** Evaluations per second of processor time. */
  readonly perCpuSecond: number;
}

/** Measures evaluations of generated questions about requests, after a warm-up of as many. */
export async function benchmark(evaluations = 20_000): Promise<EvaluationTimes> {
  const policy = await CompiledPolicy.of(compileCorpus());
  const random = new Random(7);
  const questions = Array.from({ length: 500 }, () => requestQuestion(random));
  const ask = (index: number) => {
    const { entrypoint, input } = questions[index % questions.length] as (typeof questions)[number];
    policy.evaluate(entrypoint, input);
  };
  for (let index = 0; index < evaluations; index += 1) ask(index);
  const times = new Float64Array(evaluations);
  const before = process.cpuUsage();
  for (let index = 0; index < evaluations; index += 1) {
    const start = performance.now();
    ask(index);
    times[index] = (performance.now() - start) * 1000;
  }
  const { user, system } = process.cpuUsage(before);
  times.sort();
  const at = (share: number) => times[Math.floor(share * evaluations)] ?? Number.NaN;
  return { evaluations, p50: at(0.5), p99: at(0.99), perCpuSecond: (evaluations * 1e6) / (user + system) };
}
