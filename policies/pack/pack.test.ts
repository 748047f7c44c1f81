import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import type { PolicyResource, ResourceValidationArgs, StackValidationArgs } from '@pulumi/policy';
import { projectName } from '../../stacks/config.ts';
import { program } from '../../stacks/program.ts';
import { plan, type RegisteredObject, stackConfiguration } from '../../stacks/runner/index.ts';
import { opaPath } from '../bundle/corpus.ts';
import { checkManifests, DeployJudge, type JudgedObject } from './judge.ts';
import { resourcePolicy, stackPolicy } from './policies.ts';

const root = join(import.meta.dirname, '../..');
const skip = existsSync(opaPath()) ? false : `${opaPath()} is not built: run make toolchain`;

describe('the policy pack', { skip }, () => {
  let judge: DeployJudge;

  before(async () => {
    judge = await DeployJudge.create();
  });

  const planned = new Map<string, readonly RegisteredObject[]>();

  /** The objects that the whole program declares for a stack; it runs once for each. */
  const objectsOf = async (stack: string): Promise<readonly RegisteredObject[]> => {
    const known = planned.get(stack);
    if (known !== undefined) return known;
    const config = await stackConfiguration(root, stack);
    const { objects } = await plan(program, { project: projectName, stack, config });
    planned.set(stack, objects);
    return objects;
  };

  /** What the pack reports about the objects, resource by resource and as a stack. */
  const reports = async (objects: readonly RegisteredObject[]) => {
    const [each, whole] = [resourcePolicy(judge), stackPolicy(judge)];
    const resources = objects.map(resourceOf);
    const said: string[] = [];
    const validate = each.validateResource as (args: ResourceValidationArgs, report: (text: string) => void) => void;
    for (const resource of resources)
      validate(resource as unknown as ResourceValidationArgs, (text) => said.push(text));
    const together: string[] = [];
    await whole.validateStack({ resources } as unknown as StackValidationArgs, (text) => together.push(text));
    return { said, together };
  };

  const changed = async (change: (manifest: JudgedObject) => JudgedObject | undefined) => {
    const objects = await objectsOf('dev');
    return objects.flatMap((object) => {
      const manifest = change(structuredClone(object.manifest) as unknown as JudgedObject);
      return manifest === undefined
        ? []
        : [{ ...object, manifest: manifest as unknown as RegisteredObject['manifest'] }];
    });
  };

  for (const stack of ['dev', 'staging', 'production']) {
    it(`passes the whole program of ${stack}`, async () => {
      const objects = await objectsOf(stack);
      assert.ok(objects.length > 100, `${objects.length} objects`);
      assert.deepEqual(await reports(objects), { said: [], together: [] });
    });
  }

  it('refuses a privileged container in the words of the rule', async () => {
    const objects = await changed((manifest) => {
      if (manifest.kind === 'Deployment' && manifest.metadata.name === 'gateway') {
        containerOf(manifest).securityContext.privileged = true;
      }
      return manifest;
    });
    const words = 'soma.deploy.deny_privileged: Deployment gateway container server is privileged';
    assert.deepEqual(await reports(objects), { said: [words], together: [words] });
  });

  it('refuses a workload whose NetworkPolicy is missing, as a stack', async () => {
    const objects = await changed((manifest) =>
      manifest.kind === 'NetworkPolicy' && manifest.metadata.name === 'gateway' ? undefined : manifest,
    );
    const words = 'soma.deploy.deny_unguarded: Deployment gateway is selected by no NetworkPolicy of its own';
    assert.deepEqual(await reports(objects), { said: [], together: [words] });
  });

  it('refuses an image of another environment, where the environment is known', async () => {
    const objects = (await objectsOf('dev')).map(({ manifest }) => manifest as unknown as JudgedObject);
    assert.deepEqual(await checkManifests(objects, { registries: ['localhost:5000'] }), []);
    const elsewhere = await checkManifests(objects, { registries: ['registry.example.com'] });
    assert.ok(elsewhere.length > 10);
    assert.deepEqual([...new Set(elsewhere.map(({ rule }) => rule))], ['soma.deploy.deny_registry']);
  });

  it('has nothing to say about components and providers', async () => {
    const validate = resourcePolicy(judge).validateResource as (args: object, report: (text: string) => void) => void;
    const report = (text: string) => assert.fail(text);
    validate({ type: 'somagent:region:Region', props: {} }, report);
    validate({ type: 'pulumi:providers:kubernetes', props: { kind: 'x' } }, report);
  });
});

// biome-ignore lint/suspicious/noExplicitAny: manifests are JSON of every shape
function containerOf(manifest: any): any {
  return manifest.spec.template.spec.containers[0];
}

/** The resource as the Pulumi engine shows it to a pack. */
function resourceOf({ urn, manifest, provider }: RegisteredObject): PolicyResource {
  return {
    type: urn.split('::')[2]?.split('$').at(-1) ?? '',
    props: manifest as unknown as Record<string, unknown>,
    urn,
    name: urn.split('::').at(-1) ?? '',
    provider: { urn: provider.name },
  } as unknown as PolicyResource;
}
