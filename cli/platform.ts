import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { CliFailure, exitCodes } from './failure.ts';

/** A step of bringing the platform up or down: one entry point of this repository. */
export interface Step {
  readonly what: string;
  /** Path of the program and its arguments, relative to the repository. */
  readonly program: readonly [string, ...string[]];
}

export interface PlatformOptions {
  readonly stack: string;
  /** A cluster that exists already: then none is started or stopped here, and no image is built. */
  readonly kubeconfig?: string;
  readonly context?: string;
}

const clusterFlags = ({ kubeconfig, context }: PlatformOptions): string[] => [
  ...(kubeconfig === undefined ? [] : ['--kubeconfig', kubeconfig]),
  ...(context === undefined ? [] : ['--context', context]),
];

const usesLocalCluster = ({ kubeconfig, context }: PlatformOptions) =>
  kubeconfig === undefined && context === undefined;

/** What `up` runs, in order. Every step is idempotent and resumable, so is the whole. */
export function upSteps(options: PlatformOptions): Step[] {
  const local: Step[] = [
    { what: 'cluster', program: ['cluster/main.ts', 'up'] },
    { what: 'images', program: ['images/main.ts', 'build'] },
    { what: 'registry', program: ['images/main.ts', 'push'] },
  ];
  const platform: Step = {
    what: 'platform',
    program: ['stacks/main.ts', 'apply', '--stack', options.stack, ...clusterFlags(options)],
  };
  return usesLocalCluster(options) ? [...local, platform] : [platform];
}

/** What `down` runs: the local cluster goes as a whole; on a cluster of others only our objects do. */
export function downSteps(options: PlatformOptions): Step[] {
  if (usesLocalCluster(options)) return [{ what: 'cluster', program: ['cluster/main.ts', 'down'] }];
  return [
    { what: 'platform', program: ['stacks/main.ts', 'destroy', '--stack', options.stack, ...clusterFlags(options)] },
  ];
}

/** What `status` runs before it looks at the pods itself; it ends with 1 when the cluster is in trouble. */
export function statusSteps(options: PlatformOptions): Step[] {
  return usesLocalCluster(options) ? [{ what: 'cluster', program: ['cluster/main.ts', 'status'] }] : [];
}

/**
 * Runs the steps one after the other. They tell their own progress and, when they fail, cause and fix.
 * @throws CliFailure that names the step, with its exit code
 */
export async function runSteps(root: string, steps: readonly Step[], signal: AbortSignal): Promise<void> {
  for (const { what, program } of steps) {
    const { code, interrupted } = await runProgram(root, program, signal);
    if (interrupted)
      throw new CliFailure(`interrupted in step ${what}`, 'run it again: it goes on from there', exitCodes.interrupted);
    if (code !== 0) {
      throw new CliFailure(
        `step ${what} failed (exit code ${code})`,
        'do what the lines above say, then run it again',
        code,
      );
    }
  }
}

function runProgram(root: string, program: readonly string[], signal: AbortSignal) {
  // The same terminal and process group: Ctrl-C reaches the step, which ends in order by itself.
  const child = spawn(process.execPath, [join(root, program[0] ?? ''), ...program.slice(1)], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return new Promise<{ code: number; interrupted: boolean }>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, killedBy) => {
      resolve({ code: code ?? exitCodes.failed, interrupted: signal.aborted || killedBy !== null });
    });
  });
}
