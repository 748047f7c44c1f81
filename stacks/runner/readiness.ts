import type { KubernetesApi, LiveObject } from './kubernetes-api.ts';

/** Whether an object does its work. `failed` never mends itself. */
export type Readiness =
  | { readonly state: 'ready' }
  | { readonly state: 'waiting'; readonly detail: string }
  | { readonly state: 'failed'; readonly detail: string };

/** What the rules ask of the API server. */
type Api = Pick<KubernetesApi, 'read' | 'serves'>;

const ready: Readiness = { state: 'ready' };
const waiting = (detail: string): Readiness => ({ state: 'waiting', detail });
const failed = (detail: string): Readiness => ({ state: 'failed', detail });

/** The few fields of status and spec that readiness reads, over all kinds. */
interface Fields {
  readonly replicas?: number;
  readonly readyReplicas?: number;
  readonly updatedReplicas?: number;
  readonly availableReplicas?: number;
  readonly observedGeneration?: number;
  readonly currentRevision?: string;
  readonly updateRevision?: string;
  readonly desiredNumberScheduled?: number;
  readonly updatedNumberScheduled?: number;
  readonly numberAvailable?: number;
  readonly completions?: number;
  readonly phase?: string;
  readonly conditions?: readonly Condition[];
}

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
}

const specOf = (live: LiveObject): Fields => (live.spec ?? {}) as Fields;
const statusOf = (live: LiveObject): Fields => (live.status ?? {}) as Fields;

function condition(live: LiveObject, type: string): Condition | undefined {
  return statusOf(live).conditions?.find((candidate) => candidate.type === type);
}

/**
 * Judges a live object by the rules of its kind; a kind without rules is ready as soon as it exists, a custom resource
 * when its `Ready` (or `Available`, `Established`) condition says so, or at once where its controller sets none.
 */
export async function readiness(live: LiveObject, api: Api): Promise<Readiness> {
  if (live.metadata.deletionTimestamp !== undefined) return waiting('it is being deleted');
  const rule = rules[`${live.apiVersion}/${live.kind}`];
  if (rule !== undefined) return rule(live, api);
  return isCustom(live) ? customResource(live) : ready;
}

type Rule = (live: LiveObject, api: Api) => Readiness | Promise<Readiness>;

const rules: Readonly<Record<string, Rule>> = {
  'apps/v1/Deployment': deployment,
  'apps/v1/StatefulSet': statefulSet,
  'apps/v1/DaemonSet': daemonSet,
  'batch/v1/Job': job,
  'v1/Pod': pod,
  'v1/PersistentVolumeClaim': claim,
  'v1/Service': service,
  'v1/Namespace': (live) => (statusOf(live).phase === 'Active' ? ready : waiting(`phase ${statusOf(live).phase}`)),
  'apiextensions.k8s.io/v1/CustomResourceDefinition': definition,
};

function deployment(live: LiveObject): Readiness {
  const status = statusOf(live);
  const wanted = specOf(live).replicas ?? 1;
  if ((status.observedGeneration ?? 0) < (live.metadata.generation ?? 0))
    return waiting('its controller has not seen it yet');
  const progressing = condition(live, 'Progressing');
  if (progressing?.reason === 'ProgressDeadlineExceeded')
    return failed(progressing.message ?? 'it made no progress in time');
  const updated = status.updatedReplicas ?? 0;
  const available = status.availableReplicas ?? 0;
  const old = (status.replicas ?? 0) - updated;
  if (updated < wanted || available < wanted) return waiting(`${available} of ${wanted} pods available`);
  return old > 0 ? waiting(`${old} old pods still running`) : ready;
}

function statefulSet(live: LiveObject): Readiness {
  const status = statusOf(live);
  const wanted = specOf(live).replicas ?? 1;
  if ((status.observedGeneration ?? 0) < (live.metadata.generation ?? 0))
    return waiting('its controller has not seen it yet');
  const readyPods = status.readyReplicas ?? 0;
  if (readyPods < wanted) return waiting(`${readyPods} of ${wanted} pods ready`);
  const onDelete = (live.spec as { updateStrategy?: { type?: string } }).updateStrategy?.type === 'OnDelete';
  if (!onDelete && status.updateRevision !== status.currentRevision && (status.updatedReplicas ?? 0) < wanted) {
    return waiting(`${status.updatedReplicas ?? 0} of ${wanted} pods updated`);
  }
  return ready;
}

function daemonSet(live: LiveObject): Readiness {
  const status = statusOf(live);
  if ((status.observedGeneration ?? 0) < (live.metadata.generation ?? 0))
    return waiting('its controller has not seen it yet');
  const wanted = status.desiredNumberScheduled ?? 0;
  const available = Math.min(status.numberAvailable ?? 0, status.updatedNumberScheduled ?? 0);
  return available < wanted ? waiting(`${available} of ${wanted} pods available`) : ready;
}

function job(live: LiveObject): Readiness {
  const failure = condition(live, 'Failed');
  if (failure?.status === 'True') return failed(failure.message ?? failure.reason ?? 'it failed');
  if (condition(live, 'Complete')?.status === 'True') return ready;
  // A suspended Job waits for somebody else; nothing that is applied later may hang on it.
  if (condition(live, 'Suspended')?.status === 'True') return ready;
  return waiting('running');
}

function pod(live: LiveObject): Readiness {
  const { phase } = statusOf(live);
  if (phase === 'Succeeded') return ready;
  if (phase === 'Failed') return failed('it ended with an error');
  return condition(live, 'Ready')?.status === 'True' ? ready : waiting(`phase ${phase ?? 'unknown'}`);
}

async function claim(live: LiveObject, api: Api): Promise<Readiness> {
  const { phase } = statusOf(live);
  if (phase === 'Bound') return ready;
  if (phase === 'Lost') return failed('the volume behind it is lost');
  const name = (live.spec as { storageClassName?: string }).storageClassName;
  if (name === undefined || name === '') return waiting('no storage class was chosen for it');
  const storageClass = await api.read({ apiVersion: 'storage.k8s.io/v1', kind: 'StorageClass', metadata: { name } });
  // Such a class binds when a pod that uses the claim is scheduled, which may come later in the program.
  return storageClass?.volumeBindingMode === 'WaitForFirstConsumer' ? ready : waiting(`phase ${phase ?? 'unknown'}`);
}

async function service(live: LiveObject, api: Api): Promise<Readiness> {
  const spec = live.spec as { selector?: Record<string, string>; type?: string };
  if (spec.type === 'ExternalName' || spec.selector === undefined || skipsAwait(live)) return ready;
  const reference = { apiVersion: 'v1', kind: 'Endpoints', metadata: live.metadata };
  const endpoints = await api.read(reference);
  const subsets = (endpoints?.subsets ?? []) as readonly { readonly addresses?: readonly unknown[] }[];
  return subsets.some(({ addresses }) => (addresses?.length ?? 0) > 0) ? ready : waiting('no ready pod behind it');
}

/** The annotation by which Pulumi's provider, too, is told not to wait. */
function skipsAwait(live: LiveObject): boolean {
  return live.metadata.annotations?.['pulumi.com/skipAwait'] === 'true';
}

async function definition(live: LiveObject, api: Api): Promise<Readiness> {
  const refused = condition(live, 'NamesAccepted');
  if (refused?.status === 'False') return failed(refused.message ?? 'its names are taken');
  if (condition(live, 'Established')?.status !== 'True') return waiting('not established yet');
  const { group, names, versions } = live.spec as DefinitionSpec;
  for (const { name } of versions.filter(({ served }) => served)) {
    if (!(await api.serves(`${group}/${name}`, names.kind))) return waiting(`version ${name} is not served yet`);
  }
  return ready;
}

interface DefinitionSpec {
  readonly group: string;
  readonly names: { readonly kind: string };
  readonly versions: readonly { readonly name: string; readonly served: boolean }[];
}

function isCustom(live: LiveObject): boolean {
  const group = live.apiVersion.split('/')[0] ?? '';
  return live.apiVersion.includes('/') && group.includes('.') && !group.endsWith('.k8s.io');
}

function customResource(live: LiveObject): Readiness {
  if (skipsAwait(live)) return ready;
  const status = statusOf(live);
  if (status.observedGeneration !== undefined && status.observedGeneration < (live.metadata.generation ?? 0)) {
    return waiting('its controller has not seen it yet');
  }
  const verdict = condition(live, 'Ready') ?? condition(live, 'Available') ?? condition(live, 'Established');
  if (verdict === undefined || verdict.status === 'True') return ready;
  return waiting(verdict.message ?? verdict.reason ?? `${verdict.type} is ${verdict.status}`);
}
