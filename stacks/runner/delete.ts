import { setTimeout as sleep } from 'node:timers/promises';
import { describe } from '@somagent/components/bridge/index.ts';
import { limited } from './clusters.ts';
import { stackLabel } from './inventory.ts';
import type { KubernetesApi, ObjectReference } from './kubernetes-api.ts';
import { StuckError } from './object-applier.ts';
import type { Reporter } from './reporter.ts';

/** Options of {@link deleteObjects}. */
export interface DeleteOptions {
  readonly stack: string;
  readonly reporter: Reporter;
  /** Seconds until an object that is still there counts as stuck. @default 300 */
  readonly timeoutSeconds?: number | undefined;
}

/** What runs goes first, so that nothing is cut off from what it needs to end well; namespaces take the rest with them. */
const workloads = new Set(['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob', 'Pod']);
const last = new Set(['Namespace', 'CustomResourceDefinition']);

/**
 * Deletes objects of a stack, the youngest first, and returns when they are gone. What another stack has meanwhile
 * taken over is left alone.
 * @throws {StuckError} naming what holds an object back
 */
export async function deleteObjects(
  objects: readonly ObjectReference[],
  api: KubernetesApi,
  options: DeleteOptions,
): Promise<void> {
  const youngestFirst = objects.toReversed();
  const waves = [
    youngestFirst.filter(({ kind, apiVersion }) => isCustom(apiVersion) && !last.has(kind)),
    youngestFirst.filter(({ kind }) => workloads.has(kind)),
    youngestFirst.filter(({ kind, apiVersion }) => !workloads.has(kind) && !last.has(kind) && !isCustom(apiVersion)),
    youngestFirst.filter(({ kind }) => kind === 'Namespace'),
    youngestFirst.filter(({ kind }) => kind === 'CustomResourceDefinition'),
  ];
  for (const wave of waves) await deleteWave(wave, api, options);
}

/** Custom resources go while their operator still runs: it has finalizers to work off. */
function isCustom(apiVersion: string): boolean {
  const group = apiVersion.split('/')[0] ?? '';
  return apiVersion.includes('/') && group.includes('.') && !group.endsWith('.k8s.io');
}

async function deleteWave(wave: readonly ObjectReference[], api: KubernetesApi, options: DeleteOptions): Promise<void> {
  const limit = limited(8);
  await Promise.all(
    wave.map((reference) =>
      limit(async () => {
        if (await isOurs(reference, api, options.stack)) await api.delete(reference, 'Foreground');
      }),
    ),
  );
  await Promise.all(wave.map((reference) => untilGone(reference, api, options)));
}

async function isOurs(reference: ObjectReference, api: KubernetesApi, stack: string): Promise<boolean> {
  const live = await api.read(reference).catch(() => undefined);
  return live?.metadata.labels?.[stackLabel] === stack;
}

async function untilGone(reference: ObjectReference, api: KubernetesApi, options: DeleteOptions): Promise<void> {
  const started = Date.now();
  const limit = options.timeoutSeconds ?? 300;
  for (let reported = 0; ; ) {
    const live = await api.read(reference).catch(() => undefined);
    if (live === undefined || live.metadata.labels?.[stackLabel] !== options.stack) return;
    const elapsed = (Date.now() - started) / 1000;
    const finalizers = live.metadata.finalizers?.join(', ') ?? '';
    if (elapsed > limit) throw held(reference, finalizers, limit);
    if (elapsed > reported + 10) {
      options.reporter.line(
        `waiting until ${describe(reference)} is gone${finalizers === '' ? '' : ` (held by ${finalizers})`}`,
      );
      reported = elapsed;
    }
    await sleep(300);
  }
}

function held(reference: ObjectReference, finalizers: string, limit: number): StuckError {
  return new StuckError({
    object: describe(reference),
    kind: 'unknown',
    cause: finalizers === '' ? `it is still there after ${limit} s` : `it is held by its finalizers (${finalizers})`,
    fix: 'start the controller that owns the finalizer, or remove the finalizer if that controller is gone',
    hopeless: true,
  });
}
