import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type Manifest } from '@somagent/components/bridge/index.ts';
import { stringify } from 'yaml';
import type { RegisteredObject } from './monitor.ts';
import type { Plan } from './plan.ts';

/** What a render wrote. */
export interface RenderResult {
  readonly files: number;
  readonly changed: number;
  readonly removed: number;
}

/**
 * Writes a directory per region with one file per object. Names carry no running number, so that a new object is a
 * new file and nothing else moves; the two digits in front are the order in which a plain `kubectl apply -f` works.
 * @param directory e.g. `rendered/production`; files of ours that are no longer declared are removed
 * @throws when an object holds a secret value: manifests live in Git
 */
export function render(planned: Plan, directory: string): RenderResult {
  for (const object of planned.objects) refuseSecrets(object);
  const byRegion = new Map<string, RegisteredObject[]>();
  for (const object of planned.objects) {
    const region = object.components[0] ?? 'stack';
    byRegion.set(region, [...(byRegion.get(region) ?? []), object]);
  }
  let [files, changed, removed] = [0, 0, 0];
  for (const [region, objects] of byRegion) {
    const wanted = new Map(objects.map(({ manifest }) => [fileName(manifest), toYaml(manifest)]));
    const result = writeRegion(join(directory, region), wanted);
    [files, changed, removed] = [files + wanted.size, changed + result.changed, removed + result.removed];
  }
  removed += removeOtherRegions(directory, byRegion);
  return { files, changed, removed };
}

function refuseSecrets({ manifest, secrets }: RegisteredObject): void {
  const first = secrets[0];
  if (first !== undefined) {
    throw new Error(
      `${describe(manifest)} has a secret value at ${first}; a manifest must hold none: let the bootstrap Job create it in the cluster and refer to it by name`,
    );
  }
  if (manifest.kind === 'Secret' && (manifest.data !== undefined || manifest.stringData !== undefined)) {
    throw new Error(
      `${describe(manifest)} holds data; a manifest must hold no secret: add it to the plan of the bootstrap Job instead`,
    );
  }
}

/** Synchronous: thousands of small files cost three times the processor time through promises. */
function writeRegion(directory: string, wanted: ReadonlyMap<string, string>): Omit<RenderResult, 'files'> {
  mkdirSync(directory, { recursive: true });
  const present = new Set(readdirSync(directory).filter((name) => name.endsWith('.yaml')));
  const stale = [...present].filter((file) => !wanted.has(file));
  for (const file of stale) rmSync(join(directory, file));
  let changed = 0;
  for (const [file, text] of wanted) {
    const path = join(directory, file);
    if (present.has(file) && readFileSync(path, 'utf8') === text) continue;
    writeFileSync(path, text);
    changed += 1;
  }
  return { changed, removed: stale.length };
}

function removeOtherRegions(directory: string, regions: ReadonlyMap<string, unknown>): number {
  let removed = 0;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (!entry.isDirectory() || regions.has(entry.name)) continue;
    removed += readdirSync(join(directory, entry.name)).length;
    rmSync(join(directory, entry.name), { recursive: true });
  }
  return removed;
}

const firstKinds = ['Namespace', 'CustomResourceDefinition', 'PriorityClass', 'StorageClass'];
const workloadKinds = ['Deployment', 'StatefulSet', 'DaemonSet', 'Job', 'CronJob', 'Pod'];

function fileName(manifest: Manifest): string {
  const { name, namespace } = manifest.metadata;
  const order = firstKinds.includes(manifest.kind) ? '00' : runs(manifest) ? '20' : '10';
  const parts = [order, manifest.kind.toLowerCase(), ...(namespace === undefined ? [] : [namespace]), name];
  return `${parts.join('-').replaceAll(/[^A-Za-z0-9.-]/g, '_')}.yaml`;
}

/** Workloads, and custom resources: an operator makes workloads of them. */
function runs({ apiVersion, kind }: Manifest): boolean {
  const group = apiVersion.split('/')[0] ?? '';
  return workloadKinds.includes(kind) || (group.includes('.') && !group.endsWith('.k8s.io'));
}

function toYaml({ apiVersion, kind, metadata, ...rest }: Manifest): string {
  return stringify({ apiVersion, kind, metadata, ...rest }, { lineWidth: 0, aliasDuplicateObjects: false });
}
