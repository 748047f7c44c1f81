import { spawn } from 'node:child_process';

/** How a command is run. */
export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Written to its standard input. */
  readonly input?: string;
  /**
   * Milliseconds after which it is killed.
   * @default 60000
   */
  readonly deadline?: number;
}

/** A command that failed: its message has the command, how it ended and the end of what it said. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

/** Runs a command to its end and gives its standard output. Throws {@link CommandError} when it does not end with 0. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const deadline = options.deadline ?? 60_000;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      ...(options.cwd ? { cwd: options.cwd } : {}),
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: deadline,
      killSignal: 'SIGKILL',
    });
    let output = '';
    let said = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    child.on('error', (error) => reject(new CommandError(`${command}: ${error.message}`)));
    child.on('close', (code, signal) => {
      if (code === 0) return resolve(output);
      const how = signal ? `killed by ${signal} (deadline ${deadline} ms)` : `exit code ${code}`;
      reject(new CommandError(`${command} ${args.join(' ')}: ${how}\n${(said || output).trim().slice(-1500)}`));
    });
    child.stdin.on('error', () => {}); // A command may end without reading what it is given.
    child.stdin.end(options.input ?? '');
  });
}

/** Runs a command for its exit code only: true when it ended with 0. */
export async function succeeds(command: string, args: readonly string[], options: RunOptions = {}): Promise<boolean> {
  return run(command, args, options).then(
    () => true,
    () => false,
  );
}
