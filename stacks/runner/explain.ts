import { describe } from '@somagent/components/bridge/index.ts';
import type { KubernetesApiError, LiveObject, ObjectReference } from './kubernetes-api.ts';

/** Why something does not work, and what a person does about it. */
export interface Explanation {
  /** The object that hangs, e.g. `apps/v1 Deployment local-services/gateway`. */
  readonly object: string;
  readonly kind: Cause;
  /** One sentence with the values that matter. */
  readonly cause: string;
  /** The next step. */
  readonly fix: string;
  /** Waiting longer won't help. */
  readonly hopeless: boolean;
}

/** The faults that are told apart. */
export type Cause =
  | 'unschedulable'
  | 'image-missing'
  | 'crash-loop'
  | 'out-of-memory'
  | 'dependency-down'
  | 'configuration-missing'
  | 'probe-failing'
  | 'kind-absent'
  | 'webhook'
  | 'quota'
  | 'pod-security'
  | 'claim-pending'
  | 'job-failed'
  | 'conflict'
  | 'immutable'
  | 'refused'
  | 'unreachable'
  | 'unknown';

/** What was read from the cluster about an object that hangs. */
export interface Evidence {
  readonly object: LiveObject;
  /** Its pods, newest first. */
  readonly pods: readonly PodEvidence[];
  /** Events about the object, its pods and the controllers between them. */
  readonly events: readonly Event[];
  /** Claims of its pods that are not bound. */
  readonly claims?: readonly LiveObject[];
  /** Services named in its logs that have no ready pod, as `name.namespace`. */
  readonly emptyServices?: readonly string[];
}

/** A pod with the last log lines of the containers that ended. */
export interface PodEvidence {
  readonly pod: LiveObject;
  readonly logs: Readonly<Record<string, string>>;
}

/** The fields of an event that explain something. */
export interface Event {
  readonly reason?: string;
  readonly message?: string;
  readonly type?: string;
  readonly involvedObject?: { readonly kind?: string; readonly name?: string };
}

interface ContainerStatus {
  readonly name: string;
  readonly image: string;
  readonly ready: boolean;
  readonly restartCount: number;
  readonly state?: {
    readonly waiting?: { readonly reason?: string; readonly message?: string };
    readonly terminated?: Termination;
    readonly running?: object;
  };
  readonly lastState?: { readonly terminated?: Termination };
}

interface Termination {
  readonly exitCode: number;
  readonly reason?: string;
}

type Finding = Omit<Explanation, 'object'>;
type Detector = (evidence: Evidence) => Finding | undefined;

/** The first cause that fits, the most specific first. */
export function explain(evidence: Evidence): Explanation {
  const object = describe(evidence.object);
  for (const detect of detectors) {
    const finding = detect(evidence);
    if (finding !== undefined) return { object, ...finding };
  }
  return { object, ...unknown(evidence) };
}

const detectors: readonly Detector[] = [
  creationRefused,
  claimPending,
  unschedulable,
  imageMissing,
  configurationMissing,
  dependencyDown,
  outOfMemory,
  jobFailed,
  crashLoop,
  probeFailing,
];

function creationRefused({ events }: Evidence): Finding | undefined {
  const message = events.find(({ reason }) => reason === 'FailedCreate')?.message;
  if (message === undefined) return undefined;
  if (message.includes('exceeded quota')) {
    return finding(
      'quota',
      `its pods are refused: ${message}`,
      'raise the ResourceQuota of the namespace, or lower the requests',
      true,
    );
  }
  if (message.includes('violates PodSecurity')) {
    return finding(
      'pod-security',
      `its pods are refused: ${message}`,
      'mend the security context of the pod; every namespace enforces the restricted profile',
      true,
    );
  }
  if (message.includes('failed calling webhook')) return webhook(message);
  return finding('refused', `its pods are refused: ${message}`, 'mend what the message names', false);
}

function claimPending({ claims = [], events }: Evidence): Finding | undefined {
  const claim = claims[0];
  if (claim === undefined) return undefined;
  const name = claim.metadata.name;
  const reason = events.find(
    ({ involvedObject, type }) => involvedObject?.name === name && type === 'Warning',
  )?.message;
  const storageClass = (claim.spec as { storageClassName?: string } | undefined)?.storageClassName;
  const cause =
    storageClass === undefined
      ? 'no storage class is set and the cluster has no default one'
      : (reason ?? `storage class ${storageClass} has provided no volume`);
  return finding(
    'claim-pending',
    `claim ${name} has no volume: ${cause}`,
    'check `kubectl get storageclass`, or set somagent:storageClass',
    storageClass === undefined,
  );
}

function unschedulable({ pods }: Evidence): Finding | undefined {
  for (const { pod } of pods) {
    const refusal = conditions(pod).find(
      ({ type, status, reason }) => type === 'PodScheduled' && status === 'False' && reason === 'Unschedulable',
    );
    if (refusal === undefined) continue;
    const message = refusal.message ?? 'no node fits';
    return finding(
      'unschedulable',
      `pod ${pod.metadata.name} fits on no node: ${message}`,
      fixForScheduling(message),
      false,
    );
  }
  return undefined;
}

function fixForScheduling(message: string): string {
  const resource = /Insufficient ([\w./-]*\w)/.exec(message)?.[1];
  if (resource !== undefined)
    return `lower the ${resource} requests (somagent:size), free ${resource} on the nodes, or add a node`;
  if (/taint/.test(message)) return 'remove the taint from a node, or wait until the node is ready';
  if (/affinity|selector/.test(message))
    return 'label a node as the pod asks, or add nodes: members of one cluster want different nodes';
  if (/PersistentVolumeClaim/.test(message)) return 'see why the claim has no volume: kubectl get pvc -A';
  return 'add a node that fits';
}

const imageReasons = new Set([
  'ErrImagePull',
  'ImagePullBackOff',
  'InvalidImageName',
  'ErrImageNeverPull',
  'RegistryUnavailable',
]);

function imageMissing({ pods, events }: Evidence): Finding | undefined {
  for (const { pod } of pods) {
    const status = containers(pod).find(({ state }) => imageReasons.has(state?.waiting?.reason ?? ''));
    if (status === undefined) continue;
    const said = events.find(
      ({ reason, message, involvedObject }) =>
        involvedObject?.name === pod.metadata.name && reason === 'Failed' && message?.includes('pull'),
    )?.message;
    const detail = said ?? status.state?.waiting?.message ?? status.state?.waiting?.reason ?? '';
    const absent = /not found|manifest unknown|InvalidImageName|couldn't parse/i.test(
      `${detail} ${status.state?.waiting?.message}`,
    );
    const fix = absent
      ? `build and push it: make images (or set somagent:registry to a registry that has ${status.image})`
      : `see that the nodes reach the registry of ${status.image} and may read from it`;
    return finding('image-missing', `image ${status.image} can't be pulled: ${lastLine(detail)}`, fix, absent);
  }
  return undefined;
}

function configurationMissing({ pods, events }: Evidence): Finding | undefined {
  for (const { pod } of pods) {
    const waiting = containers(pod).find(({ state }) =>
      /^CreateContainer(Config)?Error$/.test(state?.waiting?.reason ?? ''),
    )?.state?.waiting;
    const mount = events.find(
      ({ reason, involvedObject }) => reason === 'FailedMount' && involvedObject?.name === pod.metadata.name,
    );
    const message = waiting?.message ?? (isStarting(pod) ? mount?.message : undefined);
    if (message === undefined) continue;
    const missing = /(secret|configmap) "([^"]+)" not found/i.exec(message);
    const fix =
      missing === null
        ? 'mend what the message names'
        : `see why ${missing[1]} ${missing[2]} is absent: the bootstrap Job of the region creates secrets (soma logs bootstrap)`;
    return finding('configuration-missing', `pod ${pod.metadata.name} can't start: ${message}`, fix, false);
  }
  return undefined;
}

const refusedConnection =
  /(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|connection refused|connection timeout|Connection terminated|no such host|could not translate host name|could not connect|Connection refused|i\/o timeout|context deadline exceeded)/;
const serviceName = /([a-z0-9](?:[-a-z0-9]*[a-z0-9])?\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)\.svc(?:\.[a-z.]+)?(?::(\d+))?/;

function dependencyDown({ pods, emptyServices = [] }: Evidence): Finding | undefined {
  for (const { pod, logs } of pods) {
    if (isReady(pod)) continue;
    const line = Object.values(logs)
      .flatMap((log) => log.split('\n'))
      .findLast((text) => refusedConnection.test(text));
    if (line === undefined) continue;
    const service = serviceName.exec(line)?.[1] ?? emptyServices[0];
    const target = service ?? 'a server it needs';
    const state =
      service !== undefined && emptyServices.includes(service) ? `; Service ${service} has no ready pod` : '';
    const fix =
      service === undefined
        ? 'start that server, or see whether a NetworkPolicy forbids the connection'
        : `see why ${service} is down: soma status; if it is up, see whether a NetworkPolicy forbids the connection`;
    return finding(
      'dependency-down',
      `pod ${pod.metadata.name} can't reach ${target}${state}: ${line.trim().slice(0, 300)}`,
      fix,
      false,
    );
  }
  return undefined;
}

function outOfMemory({ pods }: Evidence): Finding | undefined {
  for (const { pod } of pods) {
    const status = containers(pod).find((candidate) => ended(candidate)?.reason === 'OOMKilled');
    if (status === undefined || isReady(pod)) continue;
    return finding(
      'out-of-memory',
      `container ${status.name} of pod ${pod.metadata.name} used more memory than its limit and was killed`,
      'raise its memory limit (somagent:size)',
      status.restartCount >= 4,
    );
  }
  return undefined;
}

function jobFailed({ object, pods }: Evidence): Finding | undefined {
  if (object.kind !== 'Job') return undefined;
  const failure = conditions(object).find(({ type, status }) => type === 'Failed' && status === 'True');
  if (failure === undefined) return undefined;
  const log = pods.flatMap(({ logs }) => Object.values(logs)).find((text) => text !== '');
  return finding(
    'job-failed',
    `it gave up (${failure.reason}): ${failure.message}${tail(log)}`,
    'mend what the log names; the next apply runs the Job again',
    true,
  );
}

function crashLoop({ pods }: Evidence): Finding | undefined {
  for (const { pod, logs } of pods) {
    const status = containers(pod).find(
      (candidate) => !candidate.ready && ended(candidate) !== undefined && ended(candidate)?.exitCode !== 0,
    );
    if (status === undefined) continue;
    const cause = `container ${status.name} of pod ${pod.metadata.name} ended with exit code ${ended(status)?.exitCode}, ${status.restartCount} restarts${tail(logs[status.name])}`;
    return finding('crash-loop', cause, 'mend what its last lines name', status.restartCount >= 4);
  }
  return undefined;
}

function probeFailing({ pods, events }: Evidence): Finding | undefined {
  for (const { pod } of pods) {
    if (isReady(pod)) continue;
    const event = events.findLast(
      ({ reason, involvedObject }) => reason === 'Unhealthy' && involvedObject?.name === pod.metadata.name,
    );
    if (event?.message === undefined) continue;
    return finding(
      'probe-failing',
      `pod ${pod.metadata.name} runs but does not answer its probe: ${event.message}`,
      `read its log: kubectl logs -n ${pod.metadata.namespace} ${pod.metadata.name}`,
      false,
    );
  }
  return undefined;
}

function unknown({ object, pods, events }: Evidence): Finding {
  const warning = events.findLast(({ type }) => type === 'Warning')?.message;
  const fallback =
    pods.length === 0
      ? 'it has no pods yet'
      : `its pods are ${pods.map(({ pod }) => (pod.status as { phase?: string })?.phase ?? 'unknown').join(', ')}`;
  const flags = object.metadata.namespace === undefined ? '' : `-n ${object.metadata.namespace} `;
  return finding(
    'unknown',
    warning ?? fallback,
    `look closer: kubectl describe ${flags}${object.kind.toLowerCase()} ${object.metadata.name}`,
    false,
  );
}

/** The cause in one line: of a log, the last line. */
export function inOneLine(cause: string): string {
  const [first = '', ...rest] = cause.split('\n');
  const last = rest.at(-1)?.trim();
  return last === undefined ? first : `${first.replace(/; its last lines:$/, '')}: ${last}`;
}

/** Explains why the API server refused an object. */
export function explainRefusal(reference: ObjectReference, error: KubernetesApiError): Explanation {
  return { object: describe(reference), ...refusal(reference, error) };
}

function refusal(reference: ObjectReference, error: KubernetesApiError): Finding {
  const { message, status, reason } = error;
  if (status === 0)
    return finding(
      'unreachable',
      message,
      'start the cluster (make up), or pass the right --kubeconfig and --context',
      true,
    );
  if (reason === 'KindAbsent') {
    const group = reference.apiVersion.split('/')[0];
    return finding(
      'kind-absent',
      `the cluster has no kind ${reference.kind} in ${reference.apiVersion}`,
      `install the operator that owns ${group} with its CRDs, or choose the renderer that needs none (somagent:rayRenderer or somagent:kafkaRenderer: pods)`,
      true,
    );
  }
  if (message.includes('failed calling webhook')) return webhook(message);
  if (message.includes('exceeded quota'))
    return finding('quota', message, 'raise the ResourceQuota of the namespace, or lower the requests', true);
  if (message.includes('violates PodSecurity'))
    return finding(
      'pod-security',
      message,
      'mend the security context of the pod; every namespace enforces the restricted profile',
      true,
    );
  if (status === 409 && error.causes.length > 0) return conflict(error);
  if (status === 422 && /immutable|updates to statefulset spec|field is immutable/i.test(message)) {
    return finding(
      'immutable',
      message,
      "this field can't be changed in place: rename the object, or delete it and apply again",
      true,
    );
  }
  if (status === 403)
    return finding(
      'refused',
      message,
      'give the account of this kubeconfig the right that is named, or use another --context',
      true,
    );
  return finding('refused', message, 'mend the field that is named', true);
}

function conflict(error: KubernetesApiError): Finding {
  const fields = error.causes.map(({ field, message }) => `${field} (${message})`).join(', ');
  return finding(
    'conflict',
    `another tool declares the same fields: ${fields}`,
    'let only one of them declare these fields: take them out of the other tool, or out of this program',
    true,
  );
}

function webhook(message: string): Finding {
  const name = /webhook "([^"]+)"/.exec(message)?.[1] ?? 'of an operator';
  return finding(
    'webhook',
    `admission webhook ${name} does not answer: ${message}`,
    'start the operator behind it, or delete its webhook configuration if the operator is gone',
    false,
  );
}

function finding(kind: Cause, cause: string, fix: string, hopeless: boolean): Finding {
  return { kind, cause, fix, hopeless };
}

interface StatusCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
}

function conditions(live: LiveObject): readonly StatusCondition[] {
  return (live.status as { conditions?: StatusCondition[] } | undefined)?.conditions ?? [];
}

function containers(pod: LiveObject): readonly ContainerStatus[] {
  const status = pod.status as
    | { initContainerStatuses?: ContainerStatus[]; containerStatuses?: ContainerStatus[] }
    | undefined;
  return [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
}

function ended(status: ContainerStatus): Termination | undefined {
  return status.state?.terminated ?? status.lastState?.terminated;
}

function isReady(pod: LiveObject): boolean {
  return conditions(pod).some(({ type, status }) => type === 'Ready' && status === 'True');
}

function isStarting(pod: LiveObject): boolean {
  return containers(pod).some(({ state }) => /ContainerCreating|PodInitializing/.test(state?.waiting?.reason ?? ''));
}

function tail(log: string | undefined): string {
  if (log === undefined || log === '') return '';
  return `; its last lines:\n${log
    .split('\n')
    .slice(-5)
    .map((line) => `      ${line.slice(0, 300)}`)
    .join('\n')}`;
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)?.slice(0, 400) ?? '';
}
