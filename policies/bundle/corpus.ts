import { execFileSync } from 'node:child_process';
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { dataFile, type Entrypoint, entrypoints, moduleFile } from '@somagent/policy/bundle.ts';
import { toolPath } from '../../cluster/toolchain.ts';

/** Folder of the corpus. */
export const corpusFolder = join(import.meta.dirname, '..');

/** Folders of rules; `facts` holds what they look up. */
const rooms = ['data', 'deploy', 'gateway', 'lib', 'orchestrator', 'tools', 'training'] as const;

/** Path of OPA: the toolchain's own, built there by `npx node cluster/main.ts toolchain`. */
export const opaPath = (): string => toolPath('opa');

/** Runs OPA. @throws Error with OPA's own words. */
export function opa(args: readonly string[], options: { readonly cwd?: string } = {}): string {
  try {
    return execFileSync(opaPath(), args, { encoding: 'utf8', stdio: 'pipe', maxBuffer: 256 * 1024 * 1024, ...options });
  } catch (error) {
    const { stderr = '', stdout = '' } = error as { stderr?: string; stdout?: string };
    const words = `${stderr}${stdout}`.trim() || String(error);
    throw new Error(`opa ${args[0]}: ${words}`, { cause: error });
  }
}

/** Files of rules, relative to the corpus: without tests unless they are asked for. */
export function ruleFiles(folder = corpusFolder, { tests = false } = {}): string[] {
  return rooms
    .flatMap((room) => globSync(`${room}/*.rego`, { cwd: folder }))
    .filter((file) => tests || !file.endsWith('_test.rego'))
    .sort();
}

/** Copies the corpus into a new temporary folder; the caller deletes it. */
export function stageCorpus(source = corpusFolder, options: { readonly tests?: boolean } = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'policies-'));
  for (const file of [...ruleFiles(source, options), 'facts/data.json']) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    cpSync(join(source, file), join(folder, file));
  }
  return folder;
}

/**
 * What a bundle decides with: rules, data, and the module that OPA compiles from them. The same corpus and compiler
 * give the same bytes.
 */
export function compileCorpus(
  source = corpusFolder,
  decisions: readonly Entrypoint[] = entrypoints,
): ReadonlyMap<string, Buffer> {
  const folder = stageCorpus(source);
  try {
    const rules = ruleFiles(folder).map((file) => [file, readFileSync(join(folder, file))] as const);
    const facts: unknown = JSON.parse(readFileSync(join(folder, 'facts/data.json'), 'utf8'));
    return new Map([
      ...rules,
      [dataFile, Buffer.from(JSON.stringify({ facts }))],
      [moduleFile, compileModule(folder, decisions)],
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function compileModule(folder: string, decisions: readonly Entrypoint[]): Buffer {
  const output = mkdtempSync(join(tmpdir(), 'policies-module-'));
  try {
    const archive = join(output, 'compiled.tar.gz');
    const asked = decisions.flatMap((entrypoint) => ['--entrypoint', entrypoint]);
    opa(['build', '--target', 'wasm', ...asked, '--output', archive, '--bundle', '.'], { cwd: folder });
    execFileSync('tar', ['-xzf', archive, '-C', output, `/${moduleFile}`], { stdio: 'pipe' });
    return readFileSync(join(output, moduleFile));
  } finally {
    rmSync(output, { recursive: true });
  }
}
