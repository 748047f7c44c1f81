import type { ResourceValidationPolicy, StackValidationPolicy } from '@pulumi/policy';
import type { DeployJudge, JudgedObject, Surroundings, Violation } from './judge.ts';

/** The only registries of the environment. @default every registry of the platform */
type Environment = Pick<Surroundings, 'registries'>;

/** Each Kubernetes object by itself, before it is made. */
export function resourcePolicy(judge: DeployJudge, environment: Environment = {}): ResourceValidationPolicy {
  return {
    name: 'soma-deploy',
    description: 'What soma/deploy refuses at admission is refused in a preview already.',
    enforcementLevel: 'mandatory',
    validateResource: ({ type, props }, report) => {
      const object = objectOf(type, props);
      if (object === undefined) return;
      for (const text of textsOf(judge.violation(object, environment))) report(text);
    },
  };
}

/** The objects of a stack beside each other: every workload has a NetworkPolicy of its own. */
export function stackPolicy(judge: DeployJudge, environment: Environment = {}): StackValidationPolicy {
  return {
    name: 'soma-deploy-stack',
    description: 'Every workload of the stack is selected by a NetworkPolicy of its own.',
    enforcementLevel: 'mandatory',
    validateStack: ({ resources }, report) => {
      // Two regions may have objects of the same name: each provider is a cluster of its own.
      const clusters = Map.groupBy(resources, ({ provider }) => provider?.urn);
      for (const members of clusters.values()) {
        const objects = members.flatMap(({ type, props, urn }) => {
          const object = objectOf(type, props);
          return object === undefined ? [] : [{ object, urn }];
        });
        const urns = new Map(objects.map(({ object, urn }) => [object, urn]));
        for (const object of urns.keys()) {
          const networkPolicies = [...urns.keys()].filter(
            ({ kind, metadata }) => kind === 'NetworkPolicy' && metadata.namespace === object.metadata.namespace,
          );
          for (const text of textsOf(judge.violation(object, { ...environment, networkPolicies })))
            report(text, urns.get(object));
        }
      }
    },
  };
}

/** The object behind a resource of the Kubernetes provider; undefined for components, providers and what is no object. */
function objectOf(type: string, props: Readonly<Record<string, unknown>>): JudgedObject | undefined {
  if (!type.startsWith('kubernetes:') || !('kind' in props) || !('metadata' in props)) return undefined;
  return props as unknown as JudgedObject;
}

function textsOf(violation: Violation | undefined): string[] {
  return violation === undefined ? [] : violation.reasons.map((reason) => `${violation.rule}: ${reason}`);
}
