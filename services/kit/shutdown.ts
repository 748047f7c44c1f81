import { type Logger, messageOf } from './log.ts';
import { stopTracing } from './tracing.ts';

/** One step of an orderly end. */
export interface ShutdownStep {
  readonly name: string;
  readonly run: () => Promise<unknown> | unknown;
}

/**
 * Runs the steps in order; a step that fails does not stop the ones after it.
 * @returns names of the steps that failed.
 */
export async function runSteps(steps: readonly ShutdownStep[], log: Logger): Promise<string[]> {
  const failed: string[] = [];
  for (const step of steps) {
    try {
      await step.run();
    } catch (error) {
      failed.push(step.name);
      log.error({ step: step.name, reason: messageOf(error) }, 'a step of the shutdown failed');
    }
  }
  return failed;
}

/**
 * On SIGTERM or SIGINT runs the steps and exits; a second signal or the deadline ends the process at once.
 * @param deadline milliseconds; keep it below the grace period of the pod.
 */
export function onShutdown(log: Logger, deadline: number, steps: readonly ShutdownStep[]): void {
  let begun = false;
  const begin = (signal: NodeJS.Signals) => {
    if (begun) process.exit(1);
    begun = true;
    log.info({ signal }, 'shutting down');
    setTimeout(() => {
      log.error({ deadline }, 'the shutdown took too long');
      process.exit(1);
    }, deadline).unref();
    void runSteps([...steps, { name: 'hand over traces', run: stopTracing }], log).then((failed) =>
      process.exit(failed.length === 0 ? 0 : 1),
    );
  };
  process.on('SIGTERM', begin);
  process.on('SIGINT', begin);
}
