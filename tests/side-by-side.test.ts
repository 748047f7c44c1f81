/**
 * A second region beside the running one: the real API server accepts every object of it, strictly, and none of them is
 * an object of the first. Two whole regions do not fit on two cores, so the second is tried by server-side dry run.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Manifest, describe as nameOf } from '@somagent/components';
import { projectName } from '../stacks/config.ts';
import { program } from '../stacks/program.ts';
import { openCluster, plan, stackConfiguration } from '../stacks/runner/index.ts';
import { kubeconfig } from './support/kubectl.ts';

const root = join(import.meta.dirname, '..');
const second = `side-${randomBytes(3).toString('hex')}`;
const write = { fieldManager: 'somagent-tests', force: true };

/** All that the program declares for a region of this name; node ports can be had once per cluster. */
async function objectsOf(region: string, overrides: Record<string, string> = {}): Promise<readonly Manifest[]> {
  const config = await stackConfiguration(root, 'dev', { regions: JSON.stringify([region]), ...overrides });
  const { objects } = await plan(program, { project: projectName, stack: 'dev', config });
  return objects.map(({ manifest }) => manifest);
}

describe('a second region beside the first', () => {
  const api = openCluster(kubeconfig, undefined);
  let first: readonly Manifest[] = [];
  let objects: readonly Manifest[] = [];
  const namespaces = () => objects.filter(({ kind }) => kind === 'Namespace');

  before(async () => {
    first = await objectsOf('local');
    objects = await objectsOf(second, {
      gatewayNodePort: '0',
      identityNodePort: '0',
      accountsNodePort: '0',
      auditNodePort: '0',
      memoryNodePort: '0',
      analyticsNodePort: '0',
      trainingNodePort: '0',
    });
    // Only what is in a namespace that exists can be tried.
    for (const namespace of namespaces()) await api.apply(namespace, write);
  });

  after(async () => {
    for (const namespace of namespaces()) await api.delete(namespace);
    api.close();
  });

  it('shares no object with it', () => {
    const taken = new Set(first.map(nameOf));
    assert.equal(objects.length, first.length);
    assert.deepEqual(
      objects.map(nameOf).filter((name) => taken.has(name)),
      [],
    );
  });

  it('is accepted whole by the API server', async () => {
    for (const manifest of objects) {
      const stored = await api.apply(manifest, { ...write, dryRun: true });
      assert.equal(nameOf(stored), nameOf(manifest));
    }
  });

  it('is refused where a port of the node is taken already (the dry run can fail)', async () => {
    const taken = (await objectsOf(second)).filter(({ spec }) => (spec as { type?: string })?.type === 'NodePort');
    assert.notEqual(taken.length, 0);
    for (const service of taken) {
      await assert.rejects(api.apply(service, { ...write, dryRun: true }), /provided port is already allocated/);
    }
  });
});
