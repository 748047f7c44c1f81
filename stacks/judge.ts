import { checkManifests } from '@somagent/policies/pack/judge.ts';
import type { Plan } from './runner/index.ts';

/** Objects that break the deploy policy: nothing was sent to a cluster. */
export class PolicyError extends Error {
  constructor(refusals: readonly string[]) {
    super(`the policy refuses ${refusals.length} objects:\n${refusals.map((line) => `  - ${line}`).join('\n')}`);
    this.name = 'PolicyError';
  }
}

/**
 * Holds every object of a plan against the policy by which the cluster admits (policies/deploy), cluster by cluster.
 * @param registries the only registries that images may come from
 * @throws PolicyError naming each object, the rule and what is wrong
 */
export async function judge({ objects }: Pick<Plan, 'objects'>, registries: readonly string[]): Promise<void> {
  const clusters = Map.groupBy(objects, ({ provider }) => provider.name);
  const refusals: string[] = [];
  for (const members of clusters.values()) {
    const manifests = members.map(({ manifest }) => manifest);
    for (const { object, rule, reasons } of await checkManifests(manifests, { registries })) {
      refusals.push(`${object}: ${reasons.join('; ')} (${rule})`);
    }
  }
  if (refusals.length > 0) throw new PolicyError(refusals);
}
