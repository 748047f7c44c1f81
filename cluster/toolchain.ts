import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from './command.ts';
import type { Progress } from './progress.ts';

/** One Go module and the programs that are built from it. */
export interface ToolFamily {
  readonly name: string;
  /** Folder of its `go.mod`. */
  readonly folder: string;
  /** What `go build` builds: the `tool` lines of a `go.mod`, or the module's own main package. */
  readonly target: 'tool' | '.';
  /** Name of each program here → name that Go gives it. */
  readonly binaries: Readonly<Record<string, string>>;
  /** Linker flags besides `-s -w`. */
  readonly ldflags?: readonly string[];
}

const root = import.meta.dirname;
const kubernetesVersion = 'v1.34.2';
const openfgaVersion = 'v1.22.1';
const versionPackage = 'k8s.io/component-base/version';

/** Every family, longest build first, so that the short ones fill the gaps. */
export const toolFamilies: readonly ToolFamily[] = [
  {
    name: 'kubernetes',
    folder: join(root, 'toolchain/kubernetes'),
    target: 'tool',
    binaries: same('kube-apiserver', 'kube-controller-manager', 'kube-proxy', 'kube-scheduler', 'kubectl', 'kubelet'),
    // A build from a module has no version of its own: clients would be told v0.0.0-master.
    ldflags: [
      `-X ${versionPackage}.gitVersion=${kubernetesVersion}`,
      `-X ${versionPackage}.gitMajor=1`,
      `-X ${versionPackage}.gitMinor=34`,
      `-X ${versionPackage}.gitTreeState=clean`,
    ],
  },
  {
    name: 'temporal',
    folder: join(root, 'toolchain/temporal'),
    target: 'tool',
    binaries: { 'temporal-server': 'server', 'temporal-sql-tool': 'sql' },
  },
  {
    name: 'openfga',
    folder: join(root, 'toolchain/openfga'),
    target: 'tool',
    binaries: same('openfga'),
    ldflags: [`-X github.com/openfga/openfga/internal/build.Version=${openfgaVersion}`],
  },
  {
    name: 'metrics-server',
    folder: join(root, 'toolchain/metrics-server'),
    target: 'tool',
    binaries: same('metrics-server'),
  },
  { name: 'opa', folder: join(root, 'toolchain/opa'), target: 'tool', binaries: same('opa') },
  { name: 'coredns', folder: join(root, 'toolchain/coredns'), target: 'tool', binaries: same('coredns') },
  { name: 'versitygw', folder: join(root, 'toolchain/versitygw'), target: 'tool', binaries: same('versitygw') },
  { name: 'registry', folder: join(root, 'toolchain/registry'), target: 'tool', binaries: same('registry') },
  {
    name: 'otel-collector',
    folder: join(root, 'toolchain/otel-collector'),
    target: '.',
    binaries: same('otel-collector'),
  },
  // A load generator with a steady rate, for benchmarks.
  { name: 'vegeta', folder: join(root, 'toolchain/vegeta'), target: 'tool', binaries: same('vegeta') },
  { name: 'network-policy', folder: join(root, 'network-policy'), target: '.', binaries: same('network-policy') },
  { name: 'storage', folder: join(root, 'storage'), target: '.', binaries: same('storage') },
  { name: 'forward', folder: join(root, 'forward'), target: '.', binaries: same('forward') },
];

function same(...names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, name]));
}

/** Where built programs are kept, for every clone of this user: `~/.cache/somagent/toolchain`. */
function toolchainCache(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'somagent/toolchain');
}

let goVersion: string | undefined;
function compiler(): string {
  goVersion ??= execFileSync('go', ['version'], { encoding: 'utf8' }).trim();
  return goVersion;
}

/** SHA-256 (hex, 64) of all that decides the programs of a family: compiler, flags, go.mod, go.sum, sources. */
export function familyDigest(family: ToolFamily, compilerVersion: string = compiler()): string {
  const hash = createHash('sha256');
  hash.update(JSON.stringify([compilerVersion, family.target, family.binaries, family.ldflags ?? []]));
  for (const file of sources(family.folder)) {
    const content = readFileSync(file);
    hash.update(`${relative(family.folder, file)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('_test.go') && !entry.name.endsWith('.md'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Folder of a family's programs, whether they are built yet or not. */
function familyFolder(family: ToolFamily): string {
  return join(toolchainCache(), `${family.name}-${familyDigest(family)}`, 'bin');
}

/** Path of a program, e.g. `toolPath('kubelet')`. Throws when no family builds it; does not build. */
export function toolPath(binary: string): string {
  const family = toolFamilies.find(({ binaries }) => binary in binaries);
  if (!family) {
    const known = toolFamilies.flatMap(({ binaries }) => Object.keys(binaries)).join(', ');
    throw new Error(`toolchain: no family builds "${binary}"; known programs: ${known}`);
  }
  return join(familyFolder(family), binary);
}

/** Families whose programs are not in the cache. */
export function missingFamilies(families: readonly ToolFamily[] = toolFamilies): ToolFamily[] {
  return families.filter((family) => !existsSync(familyFolder(family)));
}

/** Builds what is not in the cache, two families at a time at low priority. A second call compiles nothing. */
export async function buildToolchain(say: Progress, families: readonly ToolFamily[] = toolFamilies): Promise<void> {
  deleteUnfinished();
  const queue = missingFamilies(families);
  let left = queue.length;
  if (left === 0) return say(`toolchain: all ${families.length} families are built`);
  say(`toolchain: ${left} of ${families.length} families to build: ${queue.map(({ name }) => name).join(', ')}`);
  const worker = async (): Promise<void> => {
    for (let family = queue.shift(); family; family = queue.shift()) {
      const start = say.elapsed();
      say(`toolchain: ${family.name} …`);
      await buildFamily(family);
      left -= 1;
      say(`toolchain: ${family.name} built in ${(say.elapsed() - start).toFixed(0)} s, ${left} left`);
    }
  };
  await Promise.all([worker(), worker()]);
}

const unfinished = '.building-';

/** Deletes what killed builds left behind; the name of the folder holds the pid of its builder. */
function deleteUnfinished(): void {
  if (!existsSync(toolchainCache())) return;
  for (const name of readdirSync(toolchainCache())) {
    if (!name.startsWith(unfinished)) continue;
    const builder = name.slice(unfinished.length).split('-')[0];
    if (!existsSync(`/proc/${builder}`)) rmSync(join(toolchainCache(), name), { recursive: true, force: true });
  }
}

async function buildFamily(family: ToolFamily): Promise<void> {
  const target = familyFolder(family);
  mkdirSync(toolchainCache(), { recursive: true });
  const building = mkdtempSync(join(toolchainCache(), `${unfinished}${process.pid}-`));
  try {
    await compile(family, building);
    mkdirSync(join(target, '..'), { recursive: true });
    // Renamed as a whole: a killed build leaves no half-filled folder under the final name.
    if (!existsSync(target)) renameSync(building, target);
  } finally {
    rmSync(building, { recursive: true, force: true });
  }
}

async function compile(family: ToolFamily, folder: string): Promise<void> {
  const ldflags = ['-s', '-w', ...(family.ldflags ?? [])].join(' ');
  const args = ['go', 'build', '-trimpath', '-ldflags', ldflags, '-o', `${folder}/`, family.target];
  await run('nice', ['-n', '10', ...args], {
    cwd: family.folder,
    env: { CGO_ENABLED: '0' },
    deadline: 60 * 60_000,
  });
  for (const [name, built] of Object.entries(family.binaries)) {
    const path = join(folder, name);
    if (built !== name) renameSync(join(folder, built), path);
    if (!existsSync(path)) throw new Error(`toolchain: ${family.name} was built without "${name}"; check its go.mod`);
  }
}
