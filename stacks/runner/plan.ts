import { describe } from '@somagent/components/bridge/index.ts';
import { type Program, type RegisteredObject, type RunOptions, type RunResult, runProgram } from './monitor.ts';

/** Everything that a program declares, in the order of its dependencies, and what it would output. */
export interface Plan extends RunResult {
  readonly objects: readonly RegisteredObject[];
}

/**
 * Runs the program without touching any cluster: configuration, wiring and names are checked before the first write.
 * @throws when two objects are one and the same to the cluster, or a secret value would leave the program
 */
export async function plan(program: Program, options: Omit<RunOptions, 'onObject'>): Promise<Plan> {
  const objects: RegisteredObject[] = [];
  const result = await runProgram(program, {
    ...options,
    onObject: async (object) => {
      objects.push(object);
    },
  });
  refuseTwins(objects);
  return { ...result, objects };
}

function refuseTwins(objects: readonly RegisteredObject[]): void {
  const owners = new Map<string, RegisteredObject>();
  for (const object of objects) {
    const identity = `${JSON.stringify(object.provider)} ${describe(object.manifest)}`;
    const twin = owners.get(identity);
    if (twin !== undefined) {
      throw new Error(
        `${describe(object.manifest)} is declared by ${twin.components.join('/')} and by ${object.components.join('/')}; rename one`,
      );
    }
    owners.set(identity, object);
  }
}
