import * as pulumi from '@pulumi/pulumi';
import type { ApiObject, Chart } from 'cdk8s';
import { logicalName, type Manifest, typeToken } from './manifest.ts';
import { type SynthesizedObject, synthesize } from './synthesize.ts';

/** The Kubernetes provider plugin that every object asks for. The npm package of the same version is installed beside it. */
export const kubernetesProviderVersion = '4.34.2';

/** Changes a rendered object before it is registered; return a new object or nothing. Identity must stay. */
export type Transform = (manifest: Manifest) => Manifest | undefined;

/** Arguments of {@link ChartDeployment}. */
export interface ChartDeploymentArgs {
  /** The chart, built in an App made by `bridgeApp()`. */
  readonly chart: Chart;
  /**
   * What must work before the pods of this chart start. Accounts, configuration and policies don't wait for it, so that
   * they are there when the pods come; `dependsOn` in the options holds everything back.
   */
  readonly startAfter?: readonly pulumi.Resource[];
  /** Last word on every object of the chart. */
  readonly transform?: Transform | undefined;
}

/** Options of {@link ChartDeployment}: an object without an explicit provider would land in whatever cluster is current. */
export interface ChartDeploymentOptions extends pulumi.ComponentResourceOptions {
  readonly provider: pulumi.ProviderResource;
}

/** One Kubernetes object as a Pulumi resource, under the token that the provider, policy packs and `pulumi state` know. */
export class KubernetesObject extends pulumi.CustomResource {
  constructor(name: string, manifest: Manifest, opts: pulumi.CustomResourceOptions) {
    super(typeToken(manifest), name, { ...manifest }, { version: kubernetesProviderVersion, ...opts });
  }
}

/** The objects of one cdk8s chart as children, so that previews, policies, drift and `dependsOn` work per object. */
export class ChartDeployment extends pulumi.ComponentResource {
  /** In the order of registration. */
  readonly objects: readonly KubernetesObject[];

  constructor(name: string, args: ChartDeploymentArgs, opts: ChartDeploymentOptions) {
    super('somagent:kubernetes:ChartDeployment', name, {}, opts);
    const objects = inStages(synthesize(args.chart).map((object) => transformed(object, args.transform)));
    const startAfter = args.startAfter ?? [];
    this.objects = registerAll(objects, (manifest, dependsOn) => {
      return new KubernetesObject(logicalName(name, manifest), withAwait(manifest), {
        parent: this,
        // Not inherited on purpose: an inherited provider is lost as soon as one component forgets to pass its options on.
        provider: opts.provider,
        dependsOn: [...dependsOn, ...asList(opts.dependsOn), ...(stageOf(manifest) === 'workload' ? startAfter : [])],
        ...secretOutputs(manifest),
      });
    });
    this.registerOutputs({});
  }
}

type DependsOn = pulumi.Input<pulumi.Input<pulumi.Resource>[]> | pulumi.Input<pulumi.Resource>;

function asList(dependsOn: DependsOn | undefined): pulumi.Input<pulumi.Resource>[] {
  if (dependsOn === undefined) return [];
  if (Array.isArray(dependsOn)) return dependsOn;
  return [dependsOn as pulumi.Input<pulumi.Resource>];
}

function transformed(object: SynthesizedObject, transform: Transform | undefined): SynthesizedObject {
  const manifest = transform?.(object.manifest);
  if (manifest === undefined) return object;
  if (typeToken(manifest) === typeToken(object.manifest) && manifest.metadata.name === object.manifest.metadata.name) {
    return { ...object, manifest };
  }
  throw new Error(
    `a transform turned ${logicalName('', object.manifest)} into ${logicalName('', manifest)}; identity must stay`,
  );
}

/** A Service needs no await of Pulumi's: it adds 10 s, and what uses it depends on the workload behind it. */
function withAwait(manifest: Manifest): Manifest {
  if (manifest.kind !== 'Service' || manifest.apiVersion !== 'v1') return manifest;
  const annotations = { 'pulumi.com/skipAwait': 'true', ...manifest.metadata.annotations };
  return { ...manifest, metadata: { ...manifest.metadata, annotations } };
}

function secretOutputs(manifest: Manifest): Pick<pulumi.CustomResourceOptions, 'additionalSecretOutputs'> {
  return manifest.kind === 'Secret' ? { additionalSecretOutputs: ['data', 'stringData'] } : {};
}

/**
 * What must exist before what, inside a chart: namespaces and definitions before everything, then all that a pod reads
 * at its start (its account and rights, its configuration, the policies that guard it), then what runs. A Service, a
 * claim or a budget is nobody's precondition: making pods wait for one that waits for pods is a deadlock.
 */
type Stage = 'foundation' | 'precondition' | 'companion' | 'workload';

const stageOfKind: Readonly<Record<string, Stage>> = {
  Namespace: 'foundation',
  CustomResourceDefinition: 'foundation',
  PriorityClass: 'foundation',
  StorageClass: 'foundation',
  ServiceAccount: 'precondition',
  Role: 'precondition',
  RoleBinding: 'precondition',
  ClusterRole: 'precondition',
  ClusterRoleBinding: 'precondition',
  ConfigMap: 'precondition',
  Secret: 'precondition',
  NetworkPolicy: 'precondition',
  LimitRange: 'precondition',
  ResourceQuota: 'precondition',
  Service: 'companion',
  Endpoints: 'companion',
  EndpointSlice: 'companion',
  PersistentVolumeClaim: 'companion',
  PodDisruptionBudget: 'companion',
  HorizontalPodAutoscaler: 'companion',
};

const stageOf = (manifest: Manifest): Stage => stageOfKind[manifest.kind] ?? 'workload';
const stageOrder: readonly Stage[] = ['foundation', 'precondition', 'companion', 'workload'];

function inStages(objects: readonly SynthesizedObject[]): readonly SynthesizedObject[] {
  return stageOrder.flatMap((stage) => objects.filter(({ manifest }) => stageOf(manifest) === stage));
}

type Register = (manifest: Manifest, dependsOn: readonly KubernetesObject[]) => KubernetesObject;

function registerAll(objects: readonly SynthesizedObject[], register: Register): readonly KubernetesObject[] {
  const registered = new Map<ApiObject, KubernetesObject>();
  const byStage: Record<Stage, KubernetesObject[]> = { foundation: [], precondition: [], companion: [], workload: [] };
  for (const object of inOrder(objects)) {
    const stage = stageOf(object.manifest);
    const explicit = ordering(object).map((dependency) => registered.get(dependency));
    const dependsOn = new Set([
      ...preconditions(stage, byStage),
      ...explicit.filter((resource) => resource !== undefined),
    ]);
    const resource = register(object.manifest, [...dependsOn]);
    registered.set(object.source, resource);
    byStage[stage].push(resource);
  }
  return [...registered.values()];
}

/** Explicit dependencies that order anything: none on a Service, none on a later stage (see {@link Stage}). */
function ordering(object: SynthesizedObject): readonly ApiObject[] {
  const own = stageOrder.indexOf(stageOf(object.manifest));
  return object.dependencies.filter((dependency) => {
    return dependency.kind !== 'Service' && stageOrder.indexOf(stageOfKind[dependency.kind] ?? 'workload') <= own;
  });
}

/** Stages in turn; inside a stage, dependencies before dependants, else as constructed. */
function inOrder(objects: readonly SynthesizedObject[]): readonly SynthesizedObject[] {
  const bySource = new Map(objects.map((object) => [object.source, object]));
  const done = new Set<SynthesizedObject>();
  const visit = (object: SynthesizedObject, path: readonly SynthesizedObject[]): void => {
    if (done.has(object)) return;
    if (path.includes(object)) {
      const circle = [...path.slice(path.indexOf(object)), object].map(({ source }) => `'${source.node.path}'`);
      throw new Error(`objects depend on each other in a circle: ${circle.join(' -> ')}; remove one dependency`);
    }
    for (const dependency of ordering(object)) {
      const target = bySource.get(dependency);
      if (target !== undefined) visit(target, [...path, object]);
    }
    done.add(object);
  };
  for (const object of inStages(objects)) visit(object, []);
  return [...done];
}

function preconditions(
  stage: Stage,
  byStage: Readonly<Record<Stage, KubernetesObject[]>>,
): readonly KubernetesObject[] {
  if (stage === 'foundation') return [];
  if (stage === 'workload') return [...byStage.foundation, ...byStage.precondition];
  return byStage.foundation;
}
