import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { type ImageName, imageDefinition } from '../catalogue.ts';
import { run } from '../command.ts';
import { dependencyFolders, linkedWorkspaces, type MissingPackage, readLock } from '../lock.ts';
import type { Stage } from './stage.ts';

/**
 * Has native code, starts or reads other files by path, or shares a class with a package that does (in a bundle there
 * would be two of it), so it can't be part of a bundle.
 */
const notBundled = [
  '@temporalio/worker',
  '@temporalio/core-bridge',
  '@temporalio/workflow',
  '@swc/core',
  '@platformatic/kafka',
];

/** Asked for by packages that do without it. */
const absent = ['pg-native'];

/** Fills `app/` with one Node service: `main.js`, and what a bundle can't hold under `node_modules`. */
export async function stageService(name: ImageName, { folder, log, repository }: Stage): Promise<void> {
  const service = join(repository, 'services', name);
  const app = join(folder, 'app');
  mkdirSync(app, { recursive: true });
  const bundled = await build({
    entryPoints: [join(service, 'main.ts')],
    outfile: join(app, 'main.js'),
    bundle: true,
    absWorkingDir: repository,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    external: [...notBundled, ...absent],
    metafile: true,
    logLevel: 'silent',
    legalComments: 'none',
    // Names survive unbundled, so a stack trace can be read without a source map.
    keepNames: true,
    // CommonJS packages inside an ES module bundle still ask for these.
    banner: {
      js: "import { createRequire as __r } from 'node:module'; const require = __r(import.meta.url); const __filename = import.meta.filename; const __dirname = import.meta.dirname;",
    },
  });
  checkInputs(name, Object.keys(bundled.metafile.inputs), repository);
  const imports = Object.values(bundled.metafile.outputs).flatMap((output) => output.imports);
  const outside = notBundled.filter((each) => imports.some(({ path }) => path === each || path.startsWith(`${each}/`)));
  for (const path of packageFolders(outside, repository)) {
    cpSync(join(repository, path), join(app, path), { recursive: true, filter: isNeeded });
  }
  writeFileSync(join(app, 'package.json'), '{ "type": "module" }\n');
  if (existsSync(join(service, 'bundle.ts'))) {
    await run(process.execPath, [join(service, 'bundle.ts'), join(app, 'workflow-bundle.js')], {
      log,
      cwd: repository,
    });
  }
}

/** A source that the catalogue does not name as an input could change without the image's tag. */
function checkInputs(name: ImageName, inputs: readonly string[], repository: string): void {
  const workspaces = linkedWorkspaces(readLock(repository), `services/${name}`);
  const declared = ['node_modules', ...imageDefinition(name).inputs, ...workspaces].map((folder) => `${folder}/`);
  const strays = inputs.filter((input) => !declared.some((folder) => input.startsWith(folder)) && !input.includes(':'));
  if (strays.length === 0) return;
  throw new Error(
    `services/${name} imports ${strays.join(', ')}; name its workspace among the dependencies of the service, or the folder in images/catalogue.ts`,
  );
}

/** Folders of packages and of all that they depend on. Optional packages for other systems are left out. */
export function packageFolders(names: readonly string[], repository: string): string[] {
  const isInstalled = (folder: string) => existsSync(join(repository, folder));
  return dependencyFolders(readLock(repository), names, requireInstalled, isInstalled);
}

function requireInstalled({ name, from, optional }: MissingPackage): void {
  if (optional) return;
  throw new Error(`package "${name}" (needed by ${from || 'a service'}) is not installed; run npm ci`);
}

const otherPlatforms = ['apple-darwin', 'windows-msvc', process.arch === 'x64' ? 'aarch64' : 'x86_64', 'musl'];

/** Native code comes for every platform; an image needs one. Maps and sources are for developers. */
function isNeeded(path: string): boolean {
  const inRelease = path.includes('/releases/') && otherPlatforms.some((platform) => path.includes(platform));
  return !inRelease && !path.endsWith('.map') && !path.includes('musl') && !path.endsWith('.md');
}
