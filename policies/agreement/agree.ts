import type { ResourceValidationArgs, StackValidationArgs } from '@pulumi/policy';
import type { Verdict } from '@somagent/policy';
import { CompiledPolicy } from '@somagent/policy/compiled-policy.ts';
import { compileCorpus } from '../bundle/corpus.ts';
import { DeployJudge } from '../pack/judge.ts';
import { resourcePolicy, stackPolicy } from '../pack/policies.ts';
import { OpaServer } from './opa-server.ts';
import { deployQuestion, type Question, requestQuestion } from './questions.ts';
import { Random } from './random.ts';

/** A question that two evaluators answer differently. */
export interface Disagreement {
  readonly question: Question;
  readonly answers: Readonly<Record<string, unknown>>;
}

/** What the evaluators said. */
export interface AgreementReport {
  readonly questions: number;
  readonly disagreements: readonly Disagreement[];
  /** Verdicts by rule, most frequent first. */
  readonly rules: Readonly<Record<string, number>>;
  readonly allowed: number;
  /** Questions that the policy pack answered too. */
  readonly byPack: number;
  readonly seconds: number;
}

/** Options of {@link agree}. */
export interface AgreementOptions {
  readonly questions: number;
  /** Share of the questions that are about Kubernetes objects, which all three answer. @default 0.5 */
  readonly deploy?: number;
  readonly seed?: number;
  /** Corpus of the server, to plant a disagreement. @default the corpus */
  readonly serverCorpus?: string;
  readonly onProgress?: (done: number) => void;
}

const batchSize = 500;

/** Puts the same questions to the OPA server, to the wasm module and, about Kubernetes objects, to the policy pack. */
export async function agree(options: AgreementOptions): Promise<AgreementReport> {
  const started = performance.now();
  const random = new Random(options.seed ?? 1);
  const server = await OpaServer.start(options.serverCorpus);
  try {
    const wasm = await CompiledPolicy.of(compileCorpus());
    const pack = new PackPath(await DeployJudge.create());
    const tally = new Tally();
    for (let left = options.questions; left > 0; left -= batchSize) {
      const questions = Array.from({ length: Math.min(left, batchSize) }, () =>
        random.chance(options.deploy ?? 0.5) ? deployQuestion(random) : requestQuestion(random),
      );
      const answers = await server.verdicts(questions);
      for (const [index, question] of questions.entries()) {
        compare(question, answers[index] as Verdict, wasm, pack, tally);
      }
      options.onProgress?.(options.questions - Math.max(0, left - batchSize));
    }
    return tally.report((performance.now() - started) / 1000);
  } finally {
    await server.stop();
  }
}

function compare(question: Question, server: Verdict, wasm: CompiledPolicy, pack: PackPath, tally: Tally): void {
  const module = wasm.evaluate(question.entrypoint, question.input);
  const answers: Record<string, unknown> = { server: shown(server), wasm: shown(module) };
  const reported = pack.reports(question);
  if (reported !== undefined) {
    answers.server = reportsOf(server);
    answers.wasm = reportsOf(module);
    answers.pack = reported;
  }
  const same = new Set(Object.values(answers).map((answer) => JSON.stringify(answer))).size === 1;
  tally.count(server, reported !== undefined, same ? undefined : { question, answers });
}

const shown = ({ allow, rule, reasons, obligations }: Verdict) => ({ allow, rule, reasons, obligations });

/** A verdict as a policy pack tells it. */
function reportsOf({ allow, rule, reasons }: Verdict): string[] {
  return allow ? [] : reasons.map((reason) => `${rule}: ${reason}`);
}

/** The pack's own validators, called as the Pulumi engine calls them. */
class PackPath {
  readonly #judge: DeployJudge;

  constructor(judge: DeployJudge) {
    this.#judge = judge;
  }

  /** What the pack reports; undefined for decisions that are not about Kubernetes objects. */
  reports({ entrypoint, input }: Question): string[] | undefined {
    if (entrypoint !== 'soma/deploy/verdict') return undefined;
    const { object, context } = input as DeployInput;
    const environment = context.registries === null ? {} : { registries: context.registries };
    const type = `kubernetes:${object.apiVersion}:${object.kind}`;
    return context.networkPolicies === null
      ? this.#alone({ type, props: object }, environment)
      : this.#beside({ type, props: object, urn: 'object' }, context.networkPolicies, environment);
  }

  #alone(resource: object, environment: Environment): string[] {
    const said: string[] = [];
    const { validateResource } = resourcePolicy(this.#judge, environment);
    const validate = validateResource as (args: ResourceValidationArgs, report: (text: string) => void) => void;
    validate(resource as ResourceValidationArgs, (text) => said.push(text));
    return said;
  }

  #beside(
    resource: { readonly type: string; readonly props: object; readonly urn: string },
    guards: readonly object[],
    environment: Environment,
  ): string[] {
    const said: string[] = [];
    const type = 'kubernetes:networking.k8s.io/v1:NetworkPolicy';
    const resources = [resource, ...guards.map((props) => ({ type, props, urn: 'guard' }))];
    stackPolicy(this.#judge, environment).validateStack(
      { resources } as unknown as StackValidationArgs,
      (text, urn) => {
        if (urn === resource.urn) said.push(text);
      },
    );
    return said;
  }
}

interface DeployInput {
  readonly object: Readonly<Record<string, unknown>>;
  readonly context: {
    readonly networkPolicies: readonly object[] | null;
    readonly registries: readonly string[] | null;
  };
}

type Environment = Parameters<typeof stackPolicy>[1];

class Tally {
  readonly #rules = new Map<string, number>();
  readonly #disagreements: Disagreement[] = [];
  #questions = 0;
  #allowed = 0;
  #byPack = 0;

  count({ allow, rule }: Verdict, byPack: boolean, disagreement: Disagreement | undefined): void {
    this.#questions += 1;
    if (allow) this.#allowed += 1;
    if (byPack) this.#byPack += 1;
    this.#rules.set(rule, (this.#rules.get(rule) ?? 0) + 1);
    if (disagreement !== undefined) this.#disagreements.push(disagreement);
  }

  report(seconds: number): AgreementReport {
    return {
      questions: this.#questions,
      disagreements: this.#disagreements,
      rules: Object.fromEntries([...this.#rules].sort(([, a], [, b]) => b - a)),
      allowed: this.#allowed,
      byPack: this.#byPack,
      seconds,
    };
  }
}
