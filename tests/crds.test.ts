/** What we render for operators, tried strictly against their genuine CRDs on the real API server. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Manifest, describe as nameOf } from '@somagent/components';
import { parseAllDocuments } from 'yaml';
import { projectName } from '../stacks/config.ts';
import { program } from '../stacks/program.ts';
import { type LiveObject, openCluster, plan, readiness, stackConfiguration } from '../stacks/runner/index.ts';
import { kubeconfig } from './support/kubectl.ts';

const root = join(import.meta.dirname, '..');
/** Schemas of the operators, kept beside the repository because they are theirs. */
const folder = join(root, '..', 'shared', 'crds');
const absent = existsSync(folder) ? false : `the genuine CRDs are not here (${folder}); nothing was validated`;
const namespace = 'crd-validation';
const write = { fieldManager: 'somagent-tests', force: true };

async function definitions(): Promise<readonly Manifest[]> {
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.yaml')).toSorted();
  const texts = await Promise.all(files.map((file) => readFile(join(folder, file), 'utf8')));
  const documents = texts.flatMap((text) =>
    parseAllDocuments(text).map((document) => document.toJS() as Manifest | null),
  );
  return documents.filter(
    (manifest) => manifest !== null && manifest.kind === 'CustomResourceDefinition',
  ) as Manifest[];
}

const groupOf = (definition: Manifest): string => (definition.spec as { group: string }).group;

/** Every custom resource of the environments that use operators. */
async function customResources(groups: ReadonlySet<string>): Promise<readonly Manifest[]> {
  const found: Manifest[] = [];
  for (const stack of ['staging', 'production']) {
    const config = await stackConfiguration(root, stack);
    const { objects } = await plan(program, { project: projectName, stack, config });
    found.push(
      ...objects.map(({ manifest }) => manifest).filter(({ apiVersion }) => groups.has(apiVersion.split('/')[0] ?? '')),
    );
  }
  return found;
}

describe('operator renderings', { skip: absent }, () => {
  const api = openCluster(kubeconfig, undefined);
  const installed: Manifest[] = [];
  let resources: readonly Manifest[] = [];

  before(async () => {
    const all = await definitions();
    resources = await customResources(new Set(all.map(groupOf)));
    const used = new Set(resources.map(({ apiVersion }) => apiVersion.split('/')[0]));
    for (const definition of all.filter((candidate) => used.has(groupOf(candidate)))) {
      if ((await api.read(definition)) !== undefined) continue;
      installed.push(definition);
      const applied = await api.apply(definition, write);
      await established(applied);
    }
    await api.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }, write);
    api.forgetKinds();
  });

  after(async () => {
    for (const definition of installed) await api.delete(definition);
    await api.delete({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
    api.close();
  });

  async function established(applied: LiveObject): Promise<void> {
    for (let live: LiveObject | undefined = applied; live !== undefined; live = await api.read(applied)) {
      if ((await readiness(live, api)).state === 'ready') return;
      await sleep(100);
    }
  }

  const here = (manifest: Manifest): Manifest => ({ ...manifest, metadata: { ...manifest.metadata, namespace } });

  it('are accepted by their CRDs, unknown fields forbidden', async () => {
    assert.notEqual(resources.length, 0, 'no environment renders a custom resource');
    for (const manifest of resources) {
      const stored = await api.apply(here(manifest), { ...write, dryRun: true });
      // What the schema does not know would be dropped in silence without strict validation.
      assert.partialDeepStrictEqual(stored.spec, manifest.spec, nameOf(manifest));
    }
  });

  it('are refused as soon as one field is misspelt', async () => {
    for (const manifest of resources) {
      const misspelt = { ...here(manifest), spec: { ...(manifest.spec as object), rayClusterConfigg: {} } };
      await assert.rejects(
        api.apply(misspelt, { ...write, dryRun: true }),
        /unknown field|field not declared in schema/,
      );
    }
  });
});
