import { setTimeout as sleep } from 'node:timers/promises';
import type { Manifest } from '@somagent/components/bridge/index.ts';
import { type ClusterDefaults, Clusters, limited } from './clusters.ts';
import { deleteObjects } from './delete.ts';
import { type Explanation, inOneLine } from './explain.ts';
import { formatReference, Inventory } from './inventory.ts';
import type { KubernetesApi, ObjectReference } from './kubernetes-api.ts';
import { type Program, type RegisteredObject, type RunResult, runProgram } from './monitor.ts';
import { applyObject, StuckError } from './object-applier.ts';
import { type Plan, plan } from './plan.ts';
import { ComponentProgress, type Reporter } from './reporter.ts';

/** Options of {@link apply}. */
export interface ApplyOptions extends ClusterDefaults {
  readonly project: string;
  readonly stack: string;
  readonly config: Readonly<Record<string, string>>;
  readonly reporter: Reporter;
  /** Seconds until an object that is not ready counts as stuck. @default 300 */
  readonly timeoutSeconds?: number | undefined;
  /** Looks at the whole plan before anything is sent; throws to refuse it. @default nothing is refused */
  readonly judge?: (planned: Plan) => Promise<void>;
}

/** What an apply did. */
export interface ApplyResult {
  readonly outputs: Readonly<Record<string, unknown>>;
  readonly objects: number;
  readonly pruned: number;
}

/** An apply that ended with objects that do not work. What does work stays. */
export class ApplyError extends Error {
  readonly stuck: readonly Explanation[];
  /** Components that wait for them. */
  readonly unfinished: readonly string[];

  constructor(stuck: readonly Explanation[], unfinished: readonly string[]) {
    super(`${stuck.length} object${stuck.length === 1 ? '' : 's'} could not be brought to work`);
    this.stuck = stuck;
    this.unfinished = unfinished;
  }
}

/**
 * Brings the clusters to what the program declares: applies each object when all that it depends on works, removes
 * what the program no longer declares, saves the outputs. Killed at any point, the next apply goes on.
 *
 * @throws {ApplyError} with cause and fix of each object that does not work
 */
export async function apply(program: Program, options: ApplyOptions): Promise<ApplyResult> {
  const planned = await plan(program, options);
  await options.judge?.(planned);
  const clusters = new Clusters(options);
  try {
    const targets = targetsOf(planned, clusters);
    for (const [api] of targets) options.reporter.line(`cluster ${api.server} runs Kubernetes ${await api.version()}`);
    const stale = await remember(targets, options.stack);
    const { outputs } = await applyAll(program, planned, clusters, options);
    const pruned = await prune(targets, stale, options);
    for (const [api] of targets) await new Inventory(api, options.stack).writeOutputs(outputs);
    return { outputs, objects: planned.objects.length, pruned };
  } finally {
    clusters.close();
  }
}

/** The objects of each cluster. */
type Targets = ReadonlyMap<KubernetesApi, readonly Manifest[]>;

function targetsOf(planned: Plan, clusters: Clusters): Targets {
  const targets = new Map<KubernetesApi, Manifest[]>();
  for (const { provider, manifest } of planned.objects) {
    const api = clusters.of(provider);
    targets.set(api, [...(targets.get(api) ?? []), manifest]);
  }
  return targets;
}

/**
 * Writes down all that is and will be there, before anything is.
 * @returns per cluster, what an earlier apply declared and this one does not
 */
async function remember(
  targets: Targets,
  stack: string,
): Promise<ReadonlyMap<KubernetesApi, readonly ObjectReference[]>> {
  const stale = new Map<KubernetesApi, readonly ObjectReference[]>();
  for (const [api, manifests] of targets) {
    const inventory = new Inventory(api, stack);
    const declared = new Set(manifests.map(formatReference));
    const left = (await inventory.read()).filter((reference) => !declared.has(formatReference(reference)));
    await inventory.write([...left, ...manifests]);
    stale.set(api, left);
  }
  return stale;
}

async function prune(
  targets: Targets,
  stale: ReadonlyMap<KubernetesApi, readonly ObjectReference[]>,
  options: ApplyOptions,
): Promise<number> {
  let pruned = 0;
  for (const [api, left] of stale) {
    if (left.length === 0) continue;
    options.reporter.line(
      `removing ${left.length} object${left.length === 1 ? '' : 's'} that the program no longer declares`,
    );
    await deleteObjects(left, api, options);
    await new Inventory(api, options.stack).write(targets.get(api) ?? []);
    pruned += left.length;
  }
  return pruned;
}

async function applyAll(
  program: Program,
  planned: Plan,
  clusters: Clusters,
  options: ApplyOptions,
): Promise<RunResult> {
  const run = new ApplyRun(planned, clusters, options);
  return runProgram(program, { ...options, onObject: run.onObject, abandoned: run.abandoned });
}

const componentOf = ({ components }: RegisteredObject): string => components.at(-1) ?? 'stack';

/** The state of one apply: what runs, what failed, and when nothing more can be done. */
class ApplyRun {
  readonly abandoned: Promise<never>;
  readonly #abandon: (error: Error) => void;
  readonly #clusters: Clusters;
  readonly #options: ApplyOptions;
  readonly #progress: ComponentProgress;
  readonly #write = limited(8);
  readonly #stuck: Explanation[] = [];
  #running = 0;
  #generation = 0;

  constructor(planned: Plan, clusters: Clusters, options: ApplyOptions) {
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => undefined);
    this.abandoned = promise;
    this.#abandon = reject;
    this.#clusters = clusters;
    this.#options = options;
    this.#progress = new ComponentProgress(options.reporter, planned.objects.map(componentOf));
  }

  /**
   * Settles when the object works. When it can't be made to work it never settles: the SDK then keeps its dependants
   * back without reporting each of them as an error, while everything independent goes on.
   */
  readonly onObject = async (object: RegisteredObject): Promise<void> => {
    this.#running += 1;
    this.#generation += 1;
    try {
      await this.#apply(object);
    } catch (error) {
      if (!(error instanceof StuckError))
        return this.#abandon(error instanceof Error ? error : new Error(String(error)));
      this.#stuck.push(error.explanation);
      this.#options.reporter.line(
        `${componentOf(object)}: ${error.explanation.object} does not work: ${inOneLine(error.explanation.cause)}`,
      );
      void this.#settle();
      await new Promise(() => undefined);
    } finally {
      this.#running -= 1;
    }
    if (this.#stuck.length > 0) void this.#settle();
  };

  async #apply(object: RegisteredObject): Promise<void> {
    const component = componentOf(object);
    this.#progress.begin(component);
    await applyObject(object.manifest, this.#clusters.of(object.provider), {
      stack: this.#options.stack,
      timeoutSeconds: this.#options.timeoutSeconds ?? 300,
      write: this.#write,
      onWaiting: (what) => this.#progress.waiting(component, what),
      onRepaired: (what) => this.#options.reporter.line(`${component}: set back what was changed by hand: ${what}`),
    });
    this.#progress.done(component);
  }

  /** Ends the run when something failed and nothing runs any more that could start something else. */
  async #settle(): Promise<void> {
    const generation = this.#generation;
    await sleep(200);
    const still = this.#running - this.#stuck.length;
    if (still === 0 && generation === this.#generation)
      this.#abandon(new ApplyError(this.#stuck, this.#progress.unfinished()));
  }
}
