import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { toolPath } from '../../cluster/toolchain.ts';

const run = promisify(execFile);
const root = new URL('../../', import.meta.url);
export const kubeconfig = new URL('.soma/kubeconfig', root).pathname;

/** Runs kubectl against the platform under test and returns what it printed. Rejects with its error text. */
export async function kubectl(...args: string[]): Promise<string> {
  const { stdout } = await run(await toolPath('kubectl'), ['--kubeconfig', kubeconfig, ...args], {
    maxBuffer: 64 << 20,
    cwd: root,
  });
  return stdout.trim();
}

/** Runs kubectl with `manifest` as its standard input. */
export async function kubectlWith(manifest: object, ...args: string[]): Promise<string> {
  const child = run(await toolPath('kubectl'), ['--kubeconfig', kubeconfig, ...args], { cwd: root });
  child.child.stdin?.end(JSON.stringify(manifest));
  return (await child).stdout.trim();
}

/** The object(s) as the API server has them. */
export async function get<T = Record<string, unknown>>(...args: string[]): Promise<T> {
  return JSON.parse(await kubectl('get', ...args, '-o', 'json')) as T;
}
