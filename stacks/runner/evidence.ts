import type { Event, Evidence, PodEvidence } from './explain.ts';
import type { KubernetesApi, LiveObject } from './kubernetes-api.ts';

/** Reads what explains why an object hangs: its pods, their logs, events, claims and the Services that they name. */
export async function gatherEvidence(object: LiveObject, api: KubernetesApi): Promise<Evidence> {
  const namespace = object.metadata.namespace;
  if (namespace === undefined) return { object, pods: [], events: [] };
  const pods = (await podsOf(object, api)).toSorted(newestFirst);
  const events = (await api.list('v1', 'Event', namespace)) as readonly (LiveObject & Event)[];
  const evidence = await Promise.all(pods.slice(0, 3).map((pod) => withLogs(pod, api)));
  const claims = await unboundClaims(object, pods, api);
  return {
    object,
    pods: evidence,
    claims,
    events: events.filter(({ involvedObject }) => concerns(involvedObject?.name, object, pods, claims)),
    emptyServices: await emptyServices(evidence, api),
  };
}

/** The pods of a workload. */
export async function podsOf(object: LiveObject, api: KubernetesApi): Promise<readonly LiveObject[]> {
  if (object.kind === 'Pod') return [object];
  const selector = (object.spec as { selector?: { matchLabels?: Record<string, string> } } | undefined)?.selector
    ?.matchLabels;
  if (selector === undefined) return [];
  const labelSelector = Object.entries(selector)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  return api.list('v1', 'Pod', object.metadata.namespace, { labelSelector });
}

function newestFirst(left: LiveObject, right: LiveObject): number {
  return (right.metadata.creationTimestamp ?? '').localeCompare(left.metadata.creationTimestamp ?? '');
}

interface Started {
  readonly name: string;
  readonly restartCount: number;
  readonly ready: boolean;
  readonly state?: { readonly waiting?: object; readonly running?: object };
}

async function withLogs(pod: LiveObject, api: KubernetesApi): Promise<PodEvidence> {
  const status = pod.status as { containerStatuses?: Started[]; initContainerStatuses?: Started[] } | undefined;
  const troubled = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])].filter(
    ({ ready }) => !ready,
  );
  const logs = await Promise.all(
    troubled.map(async (container) => [container.name, await logOf(pod, container, api)] as const),
  );
  return { pod, logs: Object.fromEntries(logs) };
}

async function logOf(pod: LiveObject, container: Started, api: KubernetesApi): Promise<string> {
  const namespace = pod.metadata.namespace ?? 'default';
  const crashed = container.restartCount > 0 && container.state?.running === undefined;
  const current = await api.logs(namespace, pod.metadata.name, container.name, false);
  return current === '' && crashed ? api.logs(namespace, pod.metadata.name, container.name, true) : current;
}

async function unboundClaims(
  object: LiveObject,
  pods: readonly LiveObject[],
  api: KubernetesApi,
): Promise<readonly LiveObject[]> {
  if (object.kind === 'PersistentVolumeClaim') return [object];
  const names = pods.flatMap((pod) => {
    const volumes =
      (pod.spec as { volumes?: { persistentVolumeClaim?: { claimName: string } }[] } | undefined)?.volumes ?? [];
    return volumes.flatMap(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName ?? []);
  });
  if (names.length === 0) return [];
  const claims = await api.list('v1', 'PersistentVolumeClaim', object.metadata.namespace);
  return claims.filter(
    ({ metadata, status }) =>
      names.includes(metadata.name) && (status as { phase?: string } | undefined)?.phase !== 'Bound',
  );
}

/** An event names its object only; those between (a ReplicaSet `gateway-7d9f`, a pod `postgres-0`) begin with its name. */
function concerns(
  name: string | undefined,
  object: LiveObject,
  pods: readonly LiveObject[],
  claims: readonly LiveObject[],
): boolean {
  if (name === undefined) return false;
  if (name === object.metadata.name || name.startsWith(`${object.metadata.name}-`)) return true;
  return [...pods, ...claims].some(({ metadata }) => metadata.name === name);
}

async function emptyServices(pods: readonly PodEvidence[], api: KubernetesApi): Promise<readonly string[]> {
  const text = pods.flatMap(({ logs }) => Object.values(logs)).join('\n');
  const names = new Set(
    [...text.matchAll(/([a-z0-9][-a-z0-9]*)\.([a-z0-9][-a-z0-9]*)\.svc/g)].map((match) => `${match[1]}.${match[2]}`),
  );
  const empty = await Promise.all([...names].map(async (name) => ((await hasReadyPod(name, api)) ? [] : [name])));
  return empty.flat();
}

async function hasReadyPod(service: string, api: KubernetesApi): Promise<boolean> {
  const [name = '', namespace = ''] = service.split('.');
  const endpoints = await api.read({ apiVersion: 'v1', kind: 'Endpoints', metadata: { name, namespace } });
  return ((endpoints?.subsets ?? []) as readonly { addresses?: unknown[] }[]).some(
    ({ addresses }) => (addresses?.length ?? 0) > 0,
  );
}
