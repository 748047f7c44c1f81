import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import tab from '@bomb.sh/tab/commander';
import { CommanderError } from 'commander';
import { CliFailure, exitCodes, formatFailure } from './failure.ts';
import { createProgram } from './program.ts';

const root = join(import.meta.dirname, '..');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const interrupt = new AbortController();
process.once('SIGINT', () => interrupt.abort());
process.once('SIGTERM', () => interrupt.abort());
// A reader that left (`soma logs x | head`) is no failure.
process.stdout.on('error', () => process.exit(0));

/** Exit code of whatever ended the program; prints what people need to know. */
function conclude(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.usage;
  if (interrupt.signal.aborted) return exitCodes.interrupted;
  process.stderr.write(formatFailure(error, process.argv.includes('--json')));
  if (process.env.SOMA_DEBUG !== undefined) console.error(error);
  return error instanceof CliFailure ? error.exitCode : exitCodes.failed;
}

const program = createProgram({
  root,
  version,
  env: process.env,
  signal: interrupt.signal,
  write: (text) => process.stdout.write(text),
  say: (text) => process.stderr.write(text),
});
tab(program, { completionCommandName: 'completion' });
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = conclude(error);
}
