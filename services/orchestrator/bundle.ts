/**
 * Writes the workflow bundle: `node services/orchestrator/bundle.ts <file>`. Images carry it beside main.js as
 * workflow-bundle.js, so that a worker starts without webpack.
 */
import { writeFile } from 'node:fs/promises';
import { bundleWorkflowCode } from '@temporalio/worker';
import { workflowModules } from './workflow-source.ts';

const [target] = process.argv.slice(2);
if (target === undefined) {
  console.error('Usage: node services/orchestrator/bundle.ts <file to write, e.g. workflow-bundle.js>');
  process.exit(2);
}
const { workflowsPath, workflowInterceptorModules } = workflowModules(import.meta.filename);
const { code } = await bundleWorkflowCode({ workflowsPath, workflowInterceptorModules });
await writeFile(target, code);
