import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { WorkerOptions } from '@temporalio/worker';
import { traceActivity } from './trace-activity.ts';

/** The sources of what runs in workflows, beside a program of this folder. */
export function workflowModules(program: string) {
  const folder = dirname(program);
  return {
    workflowsPath: join(folder, 'workflows.ts'),
    workflowInterceptorModules: [join(folder, 'trace-workflow.ts')],
  };
}

/** The prebuilt bundle beside the program, as in the image; from sources, the workflows themselves. */
export function workflowSource(
  program: string,
): Pick<WorkerOptions, 'workflowBundle' | 'workflowsPath' | 'interceptors'> {
  const codePath = join(dirname(program), 'workflow-bundle.js');
  const activity = [traceActivity];
  if (existsSync(codePath)) return { workflowBundle: { codePath }, interceptors: { activity } };
  const { workflowsPath, workflowInterceptorModules } = workflowModules(program);
  return { workflowsPath, interceptors: { activity, workflowModules: workflowInterceptorModules } };
}
