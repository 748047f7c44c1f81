import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Logger } from '@somagent/kit';
import { z } from 'zod';
import { measuresSchema } from './gate.ts';

/** What the job writes when it has succeeded. */
export const reportSchema = z.object({
  datasetHash: z.string(),
  codeHash: z.string(),
  corpusHash: z.string(),
  baseModelHash: z.string(),
  modelHash: z.string(),
  recipe: z.record(z.string(), z.number()),
  turns: z.object({ train: z.int(), heldOut: z.int() }),
  candidate: measuresSchema,
  serving: measuresSchema,
  seconds: z.number(),
});

/** The job did not succeed. */
export class JobFailed extends Error {
  constructor(code: number | null, last: readonly string[]) {
    super(`the Ray job ended with ${code ?? 'a signal'}; its last lines: ${last.join(' | ') || 'none'}`);
    this.name = 'JobFailed';
  }
}

/** Options of {@link trainFolder}. */
export interface TrainerOptions {
  /** Program and arguments before the folder. */
  readonly command: readonly string[];
  /** Variables of the program, beside PATH. */
  readonly env: Readonly<Record<string, string>>;
  readonly log: Logger;
  /** How long a stopped job may take before it is killed, milliseconds. @default 30000 */
  readonly grace?: number;
}

const keptLines = 5;

/**
 * Runs the job on a prepared folder and waits for its end. An aborted signal stops the job, then Ray, then the process.
 * @throws JobFailed; the reason of the signal when that stopped it.
 */
export async function trainFolder(folder: string, signal: AbortSignal, options: TrainerOptions): Promise<void> {
  signal.throwIfAborted();
  const { command, env, log, grace = 30_000 } = options;
  const [program = 'python3', ...args] = command;
  // A group of its own, so that nothing of Ray outlives it. No variable of this service reaches it.
  const child = spawn(program, [...args, folder], {
    env: { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const last: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      log.info({ line: line.slice(0, 500) }, 'training');
      last.push(line.slice(0, 300));
      if (last.length > keptLines) last.shift();
    });
  }
  let killer: NodeJS.Timeout | undefined;
  const stop = () => {
    child.kill('SIGTERM');
    killer = setTimeout(() => killGroup(child.pid), grace);
  };
  signal.addEventListener('abort', stop);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    signal.throwIfAborted();
    if (code !== 0) throw new JobFailed(code, last);
  } finally {
    signal.removeEventListener('abort', stop);
    clearTimeout(killer);
    killGroup(child.pid);
  }
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group is gone already.
  }
}
