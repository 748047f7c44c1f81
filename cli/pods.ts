import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';

/** A pod in one line, and what is wrong with it. */
export interface PodSummary {
  readonly namespace: string;
  readonly name: string;
  /** `ready`, `done`, or why not: `unschedulable`, `ImagePullBackOff`, ... */
  readonly state: string;
  readonly healthy: boolean;
  readonly restarts: number;
  /** The cluster's own words about the trouble. */
  readonly detail: string;
}

/** Label of every object that this platform put on a cluster. */
export const platformSelector = 'app.kubernetes.io/part-of=somagent';

/** Reads a pod's state the way a person would. */
export function summarisePod(pod: V1Pod): PodSummary {
  const containers = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  const restarts = containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
  const where = { namespace: pod.metadata?.namespace ?? '', name: pod.metadata?.name ?? '', restarts };
  return { ...where, ...stateOf(pod, containers) };
}

function stateOf(
  pod: V1Pod,
  containers: readonly V1ContainerStatus[],
): Pick<PodSummary, 'state' | 'healthy' | 'detail'> {
  if (pod.metadata?.deletionTimestamp !== undefined) return { state: 'ending', healthy: true, detail: '' };
  if (pod.status?.phase === 'Succeeded') return { state: 'done', healthy: true, detail: '' };
  const conditions = pod.status?.conditions ?? [];
  const scheduled = conditions.find(({ type }) => type === 'PodScheduled');
  if (scheduled?.status === 'False') return { state: 'unschedulable', healthy: false, detail: scheduled.message ?? '' };
  const waiting = containers.map(({ state }) => state?.waiting).find((reason) => reason !== undefined);
  if (waiting !== undefined) {
    const last = containers.map(({ lastState }) => lastState?.terminated).find((end) => end !== undefined);
    const ended = last === undefined ? '' : `last ended with ${last.exitCode} (${last.reason ?? 'no reason'})`;
    return { state: waiting.reason ?? 'waiting', healthy: false, detail: waiting.message ?? ended };
  }
  if (pod.status?.phase === 'Failed')
    return { state: 'failed', healthy: false, detail: pod.status.message ?? pod.status.reason ?? '' };
  if (conditions.some(({ type, status }) => type === 'Ready' && status === 'True')) {
    return { state: 'ready', healthy: true, detail: '' };
  }
  const unready = (pod.status?.containerStatuses ?? []).filter(({ ready }) => !ready).map(({ name }) => name);
  return { state: 'not ready', healthy: false, detail: unready.length > 0 ? `probe of ${unready.join(', ')}` : '' };
}

/** The next step for a pod in trouble. */
export function fixOf({ state, namespace, name }: PodSummary): string {
  if (state === 'unschedulable')
    return 'free the CPU or memory it asks for, or make the region smaller in its configuration';
  if (/Image/.test(state)) return 'build and push the image: make images';
  if (state === 'CreateContainerConfigError') return 'a Secret or ConfigMap is missing: look at the Jobs of bootstrap';
  return `look at its log: soma logs ${name} --namespace ${namespace}`;
}
