import { registryAddress } from '../layout.ts';
import type { Api } from './api.ts';
import type { Trouble } from './status.ts';

/** A pod, as far as its troubles are read from it. */
export interface Pod {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: { readonly containers: readonly { readonly name: string; readonly image: string }[] };
  readonly status: {
    readonly phase: string;
    readonly message?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly containerStatuses?: readonly ContainerStatus[];
  };
}

export interface ContainerStatus {
  readonly name: string;
  readonly image: string;
  readonly ready: boolean;
  readonly restartCount: number;
  readonly state: {
    readonly waiting?: { readonly reason: string; readonly message?: string };
    readonly running?: object;
    readonly terminated?: { readonly reason: string; readonly exitCode: number };
  };
  readonly lastState?: { readonly terminated?: { readonly reason: string; readonly exitCode: number } };
}

type Reason = Pick<Trouble, 'cause' | 'fix'>;

/** Why a pod is not ready and what to do, with what its log and events say where its status is silent. */
export async function explainPod(api: Api, pod: Pod): Promise<Trouble> {
  const object = `pod ${pod.metadata.namespace}/${pod.metadata.name}`;
  const reason = podReason(pod);
  if (reason.needs === 'log')
    return { object, fix: reason.fix, cause: `${reason.cause}: ${await lastLog(api, pod, reason.container)}` };
  if (reason.needs === 'events')
    return { object, fix: reason.fix, cause: `${reason.cause}: ${await lastWarning(api, pod)}` };
  return { object, cause: reason.cause, fix: reason.fix };
}

/** What the status of a pod says by itself; `needs` names where the rest has to be looked up. Pure. */
export function podReason(pod: Pod): Reason & { readonly needs?: 'log' | 'events'; readonly container?: string } {
  const { status } = pod;
  const unscheduled = status.conditions?.find(
    ({ type, status: value }) => type === 'PodScheduled' && value === 'False',
  );
  if (unscheduled) return unschedulable(unscheduled.message ?? '');
  const containers = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
  const suspect = containers.find(
    ({ state }) =>
      state.waiting && state.waiting.reason !== 'PodInitializing' && state.waiting.reason !== 'ContainerCreating',
  );
  if (suspect) return waiting(suspect);
  const ended = containers.find(({ state }) => state.terminated && state.terminated.exitCode !== 0);
  if (ended) return crashed(ended);
  const unready = status.containerStatuses?.find(({ ready, state }) => !ready && state.running);
  if (unready) {
    return {
      cause: `container ${unready.name} runs but its readiness probe fails`,
      fix: 'wait for what it depends on, or read its log',
      needs: 'events',
    };
  }
  return {
    cause: status.message ?? `phase ${status.phase}, containers not started`,
    fix: 'wait; the event names what is missing',
    needs: 'events',
  };
}

function unschedulable(message: string): Reason {
  const fix = /Insufficient (cpu|memory)/.test(message)
    ? 'lower the requests or the number of replicas in the configuration, or use a larger machine'
    : 'give the node what the pod asks for (label, volume, taint), or ask for less';
  return { cause: `can't be scheduled: ${message}`, fix };
}

function waiting(container: ContainerStatus) {
  const { reason = '', message = '' } = container.state.waiting ?? {};
  if (/ImagePull|ErrImage|InvalidImage/.test(reason)) {
    const local = container.image.startsWith(`${registryAddress}/`);
    return {
      cause: `image ${container.image} can't be pulled (${reason}): ${message}`,
      fix: local ? '`make images` builds and pushes it' : 'check its name and the registry of the environment',
    };
  }
  if (reason === 'CrashLoopBackOff') return crashed(container);
  if (reason === 'CreateContainerConfigError') {
    return { cause: `container ${container.name}: ${message}`, fix: 'create the Secret or ConfigMap that it names' };
  }
  return {
    cause: `container ${container.name} waits (${reason}): ${message}`,
    fix: 'mend what the message names',
    needs: 'events' as const,
  };
}

function crashed(container: ContainerStatus) {
  const end = container.state.terminated ?? container.lastState?.terminated;
  const how =
    end?.reason === 'OOMKilled' ? 'used more memory than its limit' : `ended with exit code ${end?.exitCode ?? '?'}`;
  return {
    cause: `container ${container.name} ${how}, ${container.restartCount} restarts; its log ends`,
    fix: end?.reason === 'OOMKilled' ? 'raise its memory limit in the configuration' : 'mend what the log names',
    needs: 'log' as const,
    container: container.name,
  };
}

interface Event {
  readonly type: string;
  readonly message: string;
  readonly lastTimestamp: string | null;
}

async function lastWarning(api: Api, { metadata }: Pod): Promise<string> {
  const selector = encodeURIComponent(`involvedObject.name=${metadata.name},type=Warning`);
  const path = `/api/v1/namespaces/${metadata.namespace}/events?fieldSelector=${selector}`;
  const { items } = await api.get<{ items: Event[] }>(path).catch(() => ({ items: [] }));
  const sorted = items.sort((a, b) => (a.lastTimestamp ?? '').localeCompare(b.lastTimestamp ?? ''));
  return sorted.at(-1)?.message ?? 'no warning was recorded';
}

async function lastLog(api: Api, { metadata }: Pod, container = ''): Promise<string> {
  const path = `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}/log?container=${container}&tailLines=1`;
  const previous = await api.text(`${path}&previous=true`).catch(() => api.text(path).catch(() => ''));
  return previous.trim() || '(empty)';
}
