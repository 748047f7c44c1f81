import { isDeepStrictEqual } from 'node:util';
import { describe, type Manifest } from '@somagent/components/bridge/index.ts';
import { type ClusterDefaults, Clusters, limited } from './clusters.ts';
import { explainRefusal } from './explain.ts';
import { fieldManager, formatReference, Inventory } from './inventory.ts';
import { type KubernetesApi, KubernetesApiError, type LiveObject } from './kubernetes-api.ts';
import { marked, StuckError } from './object-applier.ts';
import type { Plan } from './plan.ts';

/** What an apply would do to one object. */
export interface Change {
  readonly action: 'create' | 'update' | 'keep' | 'delete';
  readonly object: string;
  /** For an update, the fields that differ, with what they are and would be. */
  readonly fields: readonly FieldChange[];
}

/** One field of an update. */
export interface FieldChange {
  readonly path: string;
  readonly from: unknown;
  readonly to: unknown;
}

/**
 * Asks the API server what an apply would change, drift included, and changes nothing.
 * @throws {StuckError} when the server would refuse an object
 */
export async function preview(
  planned: Plan,
  options: ClusterDefaults & { readonly stack: string },
): Promise<readonly Change[]> {
  const clusters = new Clusters(options);
  try {
    const limit = limited(8);
    const created = namesOfNew(planned);
    const changes = planned.objects.map(({ manifest, provider }) =>
      limit(() => changeOf(manifest, clusters.of(provider), options.stack, created)),
    );
    return [...(await Promise.all(changes)), ...(await deletions(planned, clusters, options.stack))];
  } finally {
    clusters.close();
  }
}

/** Namespaces and kinds that this very apply would bring: their objects can't be tried yet. */
function namesOfNew(planned: Plan): ReadonlySet<string> {
  return new Set(
    planned.objects.flatMap(({ manifest }) => {
      if (manifest.kind === 'Namespace') return [`namespace ${manifest.metadata.name}`];
      if (manifest.kind !== 'CustomResourceDefinition') return [];
      const spec = manifest.spec as { names?: { kind?: string } } | undefined;
      return [`kind ${spec?.names?.kind}`];
    }),
  );
}

async function changeOf(
  manifest: Manifest,
  api: KubernetesApi,
  stack: string,
  created: ReadonlySet<string>,
): Promise<Change> {
  const object = describe(manifest);
  try {
    const before = await api.read(manifest);
    const after = await api.apply(marked(manifest, stack), { fieldManager, dryRun: true, force: before !== undefined });
    if (before === undefined) return { action: 'create', object, fields: [] };
    const fields = differences(comparable(before), comparable(after), '');
    return { action: fields.length === 0 ? 'keep' : 'update', object, fields };
  } catch (error) {
    if (!(error instanceof KubernetesApiError)) throw error;
    const awaited = created.has(`namespace ${manifest.metadata.namespace}`) || created.has(`kind ${manifest.kind}`);
    if (error.status === 404 && awaited) return { action: 'create', object, fields: [] };
    if (error.status === 422 && manifest.kind === 'Job') return { action: 'update', object, fields: [] };
    throw new StuckError(explainRefusal(manifest, error));
  }
}

async function deletions(planned: Plan, clusters: Clusters, stack: string): Promise<readonly Change[]> {
  const declared = new Set(planned.objects.map(({ manifest }) => formatReference(manifest)));
  const apis = new Set(planned.objects.map(({ provider }) => clusters.of(provider)));
  const left = await Promise.all([...apis].map((api) => new Inventory(api, stack).read()));
  return left
    .flat()
    .filter((reference) => !declared.has(formatReference(reference)))
    .map((reference) => ({ action: 'delete', object: describe(reference), fields: [] }));
}

/** Without what every write changes. */
function comparable({ metadata, status, ...rest }: LiveObject): unknown {
  const { managedFields, resourceVersion, generation, ...kept } = metadata;
  return { ...rest, metadata: kept };
}

/** The leaves in which two values differ. */
function differences(from: unknown, to: unknown, path: string): readonly FieldChange[] {
  if (isDeepStrictEqual(from, to)) return [];
  if (!isObject(from) || !isObject(to)) return [{ path, from, to }];
  const keys = new Set([...Object.keys(from), ...Object.keys(to)]);
  return [...keys].flatMap((key) => differences(from[key], to[key], path === '' ? key : `${path}.${key}`));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object';
}
