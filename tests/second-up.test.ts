/**
 * A second `pulumi up` must change nothing. The provider compares the program's input with the live object, pruned to
 * the fields of the input; so the input must be written as the API server stores it. Needs the platform of stack dev.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { describe as nameOf } from '@somagent/components';
import { projectName } from '../stacks/config.ts';
import { program } from '../stacks/program.ts';
import { openCluster, plan, preview, stackConfiguration } from '../stacks/runner/index.ts';
import { kubeconfig } from './support/kubectl.ts';

const root = join(import.meta.dirname, '..');

/** `live` with only those fields that `input` has. */
function pruned(live: unknown, input: unknown): unknown {
  if (Array.isArray(live) && Array.isArray(input)) return live.map((item, index) => pruned(item, input[index]));
  if (!isObject(live) || !isObject(input)) return live;
  return Object.fromEntries(
    Object.keys(input).flatMap((key) => (key in live ? [[key, pruned(live[key], input[key])]] : [])),
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

describe('a second up of stack dev', async () => {
  const config = await stackConfiguration(root, 'dev');
  const planned = await plan(program, { project: projectName, stack: 'dev', config });

  it('finds every object stored as it was written', async () => {
    const api = openCluster(kubeconfig, undefined);
    for (const { manifest } of planned.objects) {
      const live = await api.read(manifest);
      assert.deepEqual(pruned(live, manifest), manifest, nameOf(manifest));
    }
    api.close();
  });

  it('has nothing to do', async () => {
    const changes = await preview(planned, { stack: 'dev', kubeconfig });
    assert.deepEqual(
      changes.filter(({ action }) => action !== 'keep'),
      [],
    );
  });
});
