import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** How a command is run. */
export interface RunOptions {
  /** File that takes all that the command says, added to what is there. */
  readonly log: string;
  readonly cwd?: string;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a command at low priority to its end and gives its standard output. @throws Error with the end of the log. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<string> {
  mkdirSync(dirname(options.log), { recursive: true });
  const log = createWriteStream(options.log, { flags: 'a' });
  log.write(`$ ${command} ${args.join(' ')}\n`);
  return new Promise((resolve, reject) => {
    const child = spawn('nice', ['-n', '5', command, ...args], {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      log.write(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => log.write(chunk));
    child.on('error', (error) => log.end(() => reject(new Error(`${command}: ${error.message}`))));
    child.on('close', (code, signal) => {
      log.end(() => {
        if (code === 0) return resolve(output);
        const end = readFileSync(options.log, 'utf8').trimEnd().split('\n').slice(-15).join('\n');
        reject(
          new Error(`${command} ${args[0] ?? ''}: ${signal ?? `exit code ${code}`}; whole log: ${options.log}\n${end}`),
        );
      });
    });
  });
}
