import { describe, type Manifest } from '@somagent/components/bridge/index.ts';
import { gatherEvidence, podsOf } from './evidence.ts';
import { type Explanation, explain, explainRefusal, inOneLine } from './explain.ts';
import { fieldManager, gone, stackLabel } from './inventory.ts';
import { type KubernetesApi, KubernetesApiError, type LiveObject, type ObjectReference } from './kubernetes-api.ts';
import { type Readiness, readiness } from './readiness.ts';

/** An object that could not be brought to work. */
export class StuckError extends Error {
  readonly explanation: Explanation;

  constructor(explanation: Explanation) {
    super(`${explanation.object}: ${explanation.cause}`);
    this.explanation = explanation;
  }
}

/** Options of {@link applyObject}. */
export interface ApplyObjectOptions {
  readonly stack: string;
  /** Seconds until an object that is not ready counts as stuck; `pulumi.com/timeoutSeconds` on the object wins. */
  readonly timeoutSeconds: number;
  /** Told what it waits for, at most every ten seconds. */
  readonly onWaiting: (what: string) => void;
  /** Told when fields that somebody changed by hand were set back. */
  readonly onRepaired: (what: string) => void;
  /** Limits how many writes run at once; waiting is not limited. */
  readonly write: <T>(action: () => Promise<T>) => Promise<T>;
}

/** The object as this runner writes it: marked with its stack. */
export function marked(manifest: Manifest, stack: string): Manifest {
  const labels = { ...manifest.metadata.labels, [stackLabel]: stack };
  return { ...manifest, metadata: { ...manifest.metadata, labels } };
}

/**
 * Applies an object and returns when it works.
 * @throws {StuckError} with cause and fix
 */
export async function applyObject(
  manifest: Manifest,
  api: KubernetesApi,
  options: ApplyObjectOptions,
): Promise<LiveObject> {
  const applied = await options.write(() => write(marked(manifest, options.stack), api, options));
  if (manifest.kind === 'CustomResourceDefinition') api.forgetKinds();
  return untilReady(applied, api, options);
}

async function write(manifest: Manifest, api: KubernetesApi, options: ApplyObjectOptions): Promise<LiveObject> {
  try {
    const before = await gone(api, manifest);
    refuseForeign(manifest, before, options.stack);
    if (isFailedJob(before)) await replaceable(manifest, api);
    else if (before !== undefined) await endBackOff(before, api);
    return await applyOwn(manifest, before, api, options);
  } catch (error) {
    if (error instanceof KubernetesApiError) throw new StuckError(explainRefusal(manifest, error));
    throw error;
  }
}

/** Taking over what somebody else made would end in two owners, and in its deletion with our stack. */
function refuseForeign(manifest: Manifest, before: LiveObject | undefined, stack: string): void {
  if (before === undefined) return;
  const owner = before.metadata.labels?.[stackLabel];
  if (owner === stack) return;
  const holder =
    typeof owner === 'string' ? `stack '${owner}'` : (before.metadata.managedFields?.[0]?.manager ?? 'somebody else');
  const adopt = `kubectl label ${manifest.kind.toLowerCase()} ${manifest.metadata.name}${manifest.metadata.namespace === undefined ? '' : ` -n ${manifest.metadata.namespace}`} --overwrite ${stackLabel}=${stack}`;
  throw new StuckError({
    object: describe(manifest),
    kind: 'conflict',
    cause: `it exists already and belongs to ${holder}`,
    fix: `rename one of the two, or hand it over: ${adopt}`,
    hopeless: true,
  });
}

async function applyOwn(
  manifest: Manifest,
  before: LiveObject | undefined,
  api: KubernetesApi,
  options: ApplyObjectOptions,
): Promise<LiveObject> {
  try {
    return await api.apply(manifest, { fieldManager });
  } catch (error) {
    if (!(error instanceof KubernetesApiError)) throw error;
    if (before !== undefined && error.status === 409 && isDrift(error)) {
      options.onRepaired(
        `${describe(manifest)}: ${error.causes.map(({ field, message }) => `${field} (${message})`).join(', ')}`,
      );
      return api.apply(manifest, { fieldManager, force: true });
    }
    if (before !== undefined && manifest.kind === 'Job' && error.status === 422) {
      await replaceable(manifest, api);
      return api.apply(manifest, { fieldManager });
    }
    throw error;
  }
}

/**
 * Whether a conflict is a change by hand, to be set back: its owner used `update` (kubectl edit, scale, patch), which
 * the server notes as `"manager" using apps/v1`. An owner who applies declares the field, and two declarations are a
 * fault that a person must settle.
 */
function isDrift(error: KubernetesApiError): boolean {
  return error.causes.length > 0 && error.causes.every(({ message }) => message?.includes(' using ') ?? false);
}

function isFailedJob(before: LiveObject | undefined): boolean {
  if (before?.kind !== 'Job') return false;
  const conditions =
    (before.status as { conditions?: { type: string; status: string }[] } | undefined)?.conditions ?? [];
  return conditions.some(({ type, status }) => type === 'Failed' && status === 'True');
}

const workloads = new Set(['Deployment', 'StatefulSet', 'DaemonSet', 'Job']);
const backOff = /BackOff|ErrImagePull|CreateContainerConfigError/;

/**
 * The kubelet tries a pod that failed again after up to five minutes. Whoever applies again has mended something and
 * shall not wait for that: pods in such a pause are made anew.
 */
async function endBackOff(before: LiveObject, api: KubernetesApi): Promise<void> {
  if (!workloads.has(before.kind)) return;
  const pausing = (await podsOf(before, api)).filter((pod) => {
    const status = pod.status as { containerStatuses?: { state?: { waiting?: { reason?: string } } }[] } | undefined;
    return (status?.containerStatuses ?? []).some(({ state }) => backOff.test(state?.waiting?.reason ?? ''));
  });
  // A Job would count the deletion of its pod as a failure.
  if (before.kind === 'Job' && pausing.length > 0) await replaceable(before, api);
  else await Promise.all(pausing.map((pod) => api.delete({ ...pod, apiVersion: 'v1', kind: 'Pod' })));
}

/** A Job's template is immutable and a failed one stays failed: make room for a new one. */
async function replaceable(manifest: ObjectReference, api: KubernetesApi): Promise<void> {
  await api.delete(manifest, 'Foreground');
  await gone(api, manifest);
}

/** How long a state that may pass is borne before it counts as stuck, in seconds. */
const patience = { hopeless: 15, unschedulable: 60 } as const;

async function untilReady(applied: LiveObject, api: KubernetesApi, options: ApplyObjectOptions): Promise<LiveObject> {
  const started = Date.now();
  const elapsed = (): number => (Date.now() - started) / 1000;
  const limit = Number(applied.metadata.annotations?.['pulumi.com/timeoutSeconds'] ?? options.timeoutSeconds);
  const suspicion = new Suspicion();
  let live: LiveObject | undefined = applied;
  let reported = 0;
  for (;;) {
    if (live === undefined) throw new StuckError(vanished(applied));
    const verdict = await steadiness(await readiness(live, api), live, api);
    if (verdict.state === 'ready') return live;
    const dueForLook = elapsed() > reported + 10 || verdict.state === 'failed' || elapsed() > limit;
    if (dueForLook) {
      const explanation = explain(await gatherEvidence(live, api));
      if (verdict.state === 'failed')
        throw new StuckError({ ...explanation, cause: withDetail(explanation, verdict.detail) });
      if (elapsed() > limit)
        throw new StuckError({
          ...explanation,
          cause: `not ready after ${limit} s (${verdict.detail}): ${explanation.cause}`,
        });
      if (suspicion.confirms(explanation)) throw new StuckError(explanation);
      const cause = explanation.kind === 'unknown' ? '' : `; ${inOneLine(explanation.cause)}`;
      options.onWaiting(`${live.kind} ${live.metadata.name}: ${verdict.detail}${cause}`);
      reported = elapsed();
    }
    await new Promise((resolve) => setTimeout(resolve, elapsed() < 3 ? 150 : 500));
    live = await readPatiently(applied, api);
  }
}

/** Seconds that a restarted container must run before its workload counts as ready. */
const settlingSeconds = 15;

/** A container that crashes right after its start is ready for a moment, again and again, where it has no probe. */
async function steadiness(verdict: Readiness, live: LiveObject, api: KubernetesApi): Promise<Readiness> {
  if (verdict.state !== 'ready' || !workloads.has(live.kind) || live.kind === 'Job') return verdict;
  for (const pod of await podsOf(live, api)) {
    const status = pod.status as
      | { containerStatuses?: { lastState?: { terminated?: { finishedAt?: string } } }[] }
      | undefined;
    for (const { lastState } of status?.containerStatuses ?? []) {
      const ended = Date.parse(lastState?.terminated?.finishedAt ?? '');
      const seconds = (Date.now() - ended) / 1000;
      if (seconds < settlingSeconds)
        return { state: 'waiting', detail: `pod ${pod.metadata.name} restarted ${Math.round(seconds)} s ago` };
    }
  }
  return verdict;
}

/** An explanation that stays the same for long enough is believed, before the time limit is over. */
class Suspicion {
  #kind: string | undefined;
  #since = 0;

  confirms(explanation: Explanation): boolean {
    if (this.#kind !== explanation.kind) {
      this.#kind = explanation.kind;
      this.#since = Date.now();
    }
    const seconds = (Date.now() - this.#since) / 1000;
    if (explanation.kind === 'unschedulable') return seconds >= patience.unschedulable;
    return explanation.hopeless && seconds >= patience.hopeless;
  }
}

/** The API server may be restarted meanwhile; that is no reason to give up an object. */
async function readPatiently(applied: LiveObject, api: KubernetesApi): Promise<LiveObject | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await api.read(applied);
    } catch (error) {
      const passing =
        error instanceof KubernetesApiError && (error.status === 0 || error.status >= 500 || error.status === 429);
      if (!passing || attempt === 20)
        throw error instanceof KubernetesApiError ? new StuckError(explainRefusal(applied, error)) : error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

function withDetail(explanation: Explanation, detail: string): string {
  return explanation.kind === 'unknown' ? detail : explanation.cause;
}

function vanished(applied: LiveObject): Explanation {
  return {
    object: describe(applied),
    kind: 'unknown',
    cause: 'somebody deleted it while we waited for it',
    fix: 'apply again',
    hopeless: true,
  };
}
