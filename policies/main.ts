import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packBundle, revisionOf } from '@somagent/policy/bundle.ts';
import { agree } from './agreement/agree.ts';
import { benchmark } from './bench.ts';
import { compileCorpus } from './bundle/corpus.ts';
import { mutate } from './regression/mutate.ts';
import { replayReport } from './regression/replay-report.ts';
import { measureCoverage } from './regression/run-tests.ts';

const usage = `Usage: node policies/main.ts <command> [options]

  build      compile the corpus; --out <folder> writes corpus.tar.gz
  test       opa test, and 100 % of the lines of the rules
  mutate     change the rules in small ways and see whether the tests notice
               --every <n>      only every n-th mutant (default: all)
               --floor <score>  percent of mutants to be killed (default: 95)
  replay     ask recorded verdicts again, of this working tree
               --log <file>     NDJSON of the topic verdict.decisions
  agree      put generated questions to the OPA server, to the wasm module and to the policy pack
               --questions <n>  (default: 150000)   --seed <n>  (default: 1)
  bench      time of one evaluation
`;

interface Options {
  readonly out?: string | undefined;
  readonly every?: string | undefined;
  readonly floor?: string | undefined;
  readonly log?: string | undefined;
  readonly questions?: string | undefined;
  readonly seed?: string | undefined;
}

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** Each command says what it found and returns whether that is good. */
const commands: Readonly<Record<string, (options: Options) => Promise<boolean>>> = {
  async build({ out }) {
    const corpus = compileCorpus();
    if (out !== undefined) {
      mkdirSync(out, { recursive: true });
      writeFileSync(join(out, 'corpus.tar.gz'), await packBundle(corpus));
    }
    say(`revision ${revisionOf(corpus)}`);
    return true;
  },

  async test() {
    const { percent, missed } = await measureCoverage();
    for (const [file, lines] of Object.entries(missed)) say(`${file}: no test reaches lines ${lines.join(', ')}`);
    say(`all tests pass; they reach ${percent} % of the lines`);
    return percent === 100;
  },

  async mutate({ every, floor = '95' }) {
    const { killed, survivors, stillborn, score } = await mutate({
      every: positive('every', every ?? '1'),
      onMutant: ({ file, line, operator, before, after }, outcome) => {
        if (outcome === 'passed') say(`survived: ${file}:${line} ${operator}: ${before} → ${after}`);
      },
    });
    say(`${killed} killed, ${survivors.length} survived, ${stillborn} do not compile: ${score.toFixed(1)} %`);
    return score >= positive('floor', floor);
  },

  async replay({ log }) {
    if (log === undefined) throw new Error('replay: --log <file> is missing; export the topic verdict.decisions to it');
    process.stdout.write(await replayReport(log));
    return true;
  },

  async agree({ questions = '150000', seed = '1' }) {
    const count = positive('questions', questions);
    const report = await agree({ questions: count, deploy: 0.7, seed: positive('seed', seed) });
    for (const [rule, times] of Object.entries(report.rules)) say(`${String(times).padStart(8)} ${rule}`);
    for (const each of report.disagreements.slice(0, 10)) say(JSON.stringify(each));
    say(
      `${report.questions} questions, ${report.byPack} of them to all three: ${report.disagreements.length} disagreements; ` +
        `${report.allowed} allowed; ${report.seconds.toFixed(0)} s`,
    );
    return report.disagreements.length === 0;
  },

  async bench() {
    const { evaluations, p50, p99, perCpuSecond } = await benchmark();
    say(
      `${evaluations} evaluations: p50 ${p50.toFixed(1)} µs, p99 ${p99.toFixed(1)} µs, ${perCpuSecond.toFixed(0)} per CPU second`,
    );
    return true;
  },
};

function positive(name: string, value: string): number {
  const number = Number(value);
  if (Number.isFinite(number) && number > 0) return number;
  throw new Error(`--${name} is "${value}": give a number above 0`);
}

async function main(): Promise<number> {
  const text = { type: 'string' } as const;
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { out: text, every: text, floor: text, log: text, questions: text, seed: text },
  });
  const command = commands[positionals[0] ?? ''];
  if (command === undefined) {
    process.stderr.write(usage);
    return 2;
  }
  return (await command(values)) ? 0 : 1;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  },
);
