import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { imageCache } from './cache.ts';
import { type ImageName, imageDefinition, imageNames, withParents } from './catalogue.ts';
import { run } from './command.ts';
import { stages } from './stages.ts';
import { imageTag, isIgnored, repository } from './tag.ts';

/** Images built at the same time when neither is built on the other. */
const sideBySide = 2;

/** Takes one line for people. */
export type Say = (line: string) => void;

const logs = (name: string): string => join(imageCache(), 'logs', `${name}.log`);

/** Name of an image in the local storage. */
const localReference = (name: ImageName, tag = imageTag(name)): string => `localhost/somagent/${name}:${tag}`;

/** Runs buildah on a storage of our own, so that images of other tools on this machine stay as they are. */
function buildah(args: readonly string[], log: string): Promise<string> {
  const cache = imageCache();
  const temporary = join(cache, 'tmp');
  mkdirSync(temporary, { recursive: true });
  const storage = [
    '--root',
    join(cache, 'storage'),
    '--runroot',
    '/run/somagent/images',
    '--storage-driver',
    'overlay',
  ];
  // The driver would leave a mount of its own folder behind.
  const options = [...storage, '--storage-opt', 'overlay.skip_mount_home=true'];
  return run('buildah', [...options, ...args], { log, env: { TMPDIR: temporary } });
}

/** `name:tag` of every image in the local storage. */
async function stored(): Promise<Set<string>> {
  const listed = await buildah(['images', '--format', '{{.Name}}:{{.Tag}}'], logs('storage'));
  return new Set(listed.split('\n').filter((line) => line !== ''));
}

/** Builds the named images, and their parents, that are not in the local storage with their present tag. */
export async function buildImages(names: readonly ImageName[], say: Say): Promise<void> {
  const present = await stored();
  const missing = withParents(names).filter((name) => !present.has(localReference(name)));
  if (missing.length === 0) return say('images: all are built');
  say(`images: ${missing.length} to build: ${missing.join(', ')}`);
  let left = missing.length;
  await inOrder(missing, async (name) => {
    const start = performance.now();
    say(`images: ${name} …`);
    await buildImage(name);
    left -= 1;
    say(`images: ${name} built in ${seconds(start)} s, ${left} left`);
  });
}

const seconds = (start: number): string => ((performance.now() - start) / 1000).toFixed(1);

/** Runs `work` for each image after its parent, as many at once as {@link sideBySide}. The first error ends it. */
async function inOrder(names: readonly ImageName[], work: (name: ImageName) => Promise<void>): Promise<void> {
  const waiting = [...names];
  const done = new Set<ImageName>();
  const running = new Set<Promise<void>>();
  const isReady = (name: ImageName): boolean => {
    const { parent } = imageDefinition(name);
    return parent === undefined || done.has(parent) || !names.includes(parent);
  };
  while (waiting.length > 0 || running.size > 0) {
    for (const name of waiting.filter(isReady).slice(0, sideBySide - running.size)) {
      waiting.splice(waiting.indexOf(name), 1);
      const task: Promise<void> = work(name).then(() => {
        done.add(name);
        running.delete(task);
      });
      running.add(task);
    }
    await Promise.race(running);
  }
}

async function buildImage(name: ImageName): Promise<void> {
  // Taken once: an edit during the build must not give this content the name of the next.
  const tag = imageTag(name);
  const log = logs(name);
  rmSync(log, { force: true });
  const folder = join(imageCache(), 'context', `${name}-${process.pid}`);
  rmSync(folder, { recursive: true, force: true });
  try {
    cpSync(join(repository, 'images', name), folder, { recursive: true, filter: (path) => !isIgnored(lastPart(path)) });
    await stages[name]?.({ folder, log, repository });
    if (imageTag(name) !== tag) throw new Error(`image ${name}: a source changed while it was read; run this again`);
    const { parent, arguments: given = {} } = imageDefinition(name);
    const values = { ...given, ...(parent === undefined ? {} : { BASE: localReference(parent) }) };
    const args = Object.entries(values).flatMap(([key, value]) => ['--build-arg', `${key}=${value}`]);
    const isolation = [
      '--isolation',
      'chroot',
      '--network',
      'host',
      '--pull-never',
      '--layers=false',
      '--format',
      'oci',
    ];
    await buildah(['bud', ...isolation, ...args, '--tag', localReference(name, tag), folder], log);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const lastPart = (path: string): string => path.slice(path.lastIndexOf('/') + 1);

/**
 * Puts the named images where the kubelet pulls them from: builds what is missing, sends what the registry lacks. Blobs
 * that it has are not sent again.
 */
export async function pushImages(names: readonly ImageName[], registry: string, say: Say): Promise<void> {
  const onLoopback = /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(registry);
  const lacking: ImageName[] = [];
  for (const name of names) {
    if (imageDefinition(name).intermediate || (onLoopback && (await isInRegistry(registry, name)))) continue;
    lacking.push(name);
  }
  if (lacking.length === 0) return say(`images: ${registry} has all`);
  await buildImages(lacking, say);
  for (const name of lacking) {
    const start = performance.now();
    // Only loopback may go without TLS; packing blobs that never leave the machine would cost more than it saves.
    const transport = onLoopback ? ['--tls-verify=false', '--disable-compression'] : [];
    const tag = imageTag(name);
    const target = `docker://${registry}/somagent/${name}:${tag}`;
    await buildah(['push', ...transport, localReference(name, tag), target], logs(`push-${name}`));
    say(`images: ${name} pushed in ${seconds(start)} s`);
  }
}

async function isInRegistry(registry: string, name: ImageName): Promise<boolean> {
  const url = `http://${registry}/v2/somagent/${name}/manifests/${imageTag(name)}`;
  const headers = { accept: 'application/vnd.oci.image.manifest.v1+json' };
  const answer = await fetch(url, { method: 'HEAD', headers }).catch(() => {
    throw new Error(`registry ${registry} does not answer; start the cluster (make up), which runs it`);
  });
  return answer.ok;
}

/** Removes images, containers and files that no present tag needs. */
export async function pruneImages(say: Say): Promise<void> {
  const log = logs('prune');
  await buildah(['rm', '--all'], log);
  const wanted = new Set(imageNames.map((name) => localReference(name)));
  const old = [...(await stored())].filter((reference) => !wanted.has(reference));
  for (const reference of old.filter((each) => !each.startsWith('<none>'))) await buildah(['rmi', reference], log);
  await buildah(['rmi', '--prune'], log);
  for (const kind of ['context', 'tmp']) rmSync(join(imageCache(), kind), { recursive: true, force: true });
  say(`images: ${old.length} old removed, ${readdirSync(imageCache()).length} folders kept in ${imageCache()}`);
}
