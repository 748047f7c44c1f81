import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Folder of Temporal's official Postgres schema, from the Go module that the toolchain pins. */
export async function officialSchema(): Promise<string> {
  const cwd = fileURLToPath(new URL('../../../cluster/toolchain/temporal/', import.meta.url));
  // Instant when the module is in Go's cache, which the toolchain fills.
  const { stdout } = await run('go', ['mod', 'download', '-json', 'go.temporal.io/server'], { cwd });
  const { Dir } = JSON.parse(stdout) as { Dir: string };
  return join(Dir, 'schema', 'postgresql', 'v12');
}
