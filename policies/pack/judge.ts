import { CompiledPolicy } from '@somagent/policy/compiled-policy.ts';
import { compileCorpus } from '../bundle/corpus.ts';

/** A Kubernetes object, as far as the rules look at it. */
export interface JudgedObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, unknown>>;
  };
  readonly [field: string]: unknown;
}

/** What the deploy policy holds against an object. */
export interface Violation {
  /** `Deployment north-services/gateway`. */
  readonly object: string;
  /** Id of the first rule that is broken. */
  readonly rule: string;
  /** Everything that is wrong with it, in words. */
  readonly reasons: readonly string[];
}

/** What is known around the object. */
export interface Surroundings {
  /** The NetworkPolicies beside it. @default not known: no workload is asked for one */
  readonly networkPolicies?: readonly JudgedObject[];
  /** The only registries of the environment. @default every registry of the platform */
  readonly registries?: readonly string[];
}

/** The deploy policy of this working tree, by the very module that services load. */
export class DeployJudge {
  readonly #policy: CompiledPolicy;

  private constructor(policy: CompiledPolicy) {
    this.#policy = policy;
  }

  /** Compiles the corpus, in half a second. @throws Error when OPA is not built. */
  static async create(): Promise<DeployJudge> {
    return new DeployJudge(await CompiledPolicy.of(compileCorpus()));
  }

  /** What is wrong with one object; undefined when nothing is. */
  violation(object: JudgedObject, { networkPolicies, registries }: Surroundings = {}): Violation | undefined {
    const context = { networkPolicies: networkPolicies ?? null, registries: registries ?? null };
    const { allow, rule, reasons } = this.#policy.evaluate('soma/deploy/verdict', { object, context });
    return allow ? undefined : { object: nameOf(object), rule, reasons };
  }

  /** What is wrong with objects that stand beside each other. */
  violations(objects: readonly JudgedObject[], surroundings: Omit<Surroundings, 'networkPolicies'> = {}): Violation[] {
    const networkPolicies = objects.filter(({ kind }) => kind === 'NetworkPolicy');
    return objects.flatMap(
      (object) => this.violation(object, { ...surroundings, networkPolicies: near(object, networkPolicies) }) ?? [],
    );
  }
}

/** Policies of other namespaces never select an object: the question is small without them. */
function near({ metadata }: JudgedObject, networkPolicies: readonly JudgedObject[]): JudgedObject[] {
  return networkPolicies.filter((policy) => policy.metadata.namespace === metadata.namespace);
}

function nameOf({ kind, metadata }: JudgedObject): string {
  return `${kind} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`;
}

/** Judges all objects of a program together: for previews and applies without the Pulumi CLI. */
export async function checkManifests(
  manifests: readonly JudgedObject[],
  surroundings: Omit<Surroundings, 'networkPolicies'> = {},
): Promise<Violation[]> {
  return (await DeployJudge.create()).violations(manifests, surroundings);
}
