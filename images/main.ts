import { parseArgs } from 'node:util';
import { buildImages, pruneImages, pushImages } from './build.ts';
import { type ImageName, imageDefinition, imageName, imageNames } from './catalogue.ts';
import { imageTag } from './tag.ts';

const usage = `Usage: node images/main.ts <command> [image ...] [--registry HOST[:PORT]]

  list            every image, its tag and what it is
  tag <image>     the content hash that names the present version
  build [image]   build what is not built yet, parents too (default: all)
  push [image]    build and put into the registry what it lacks (default: 127.0.0.1:5000)
  prune           remove images and files of older versions`;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { registry: { type: 'string', default: '127.0.0.1:5000' }, help: { type: 'boolean', default: false } },
  });
  const [command, ...rest] = positionals;
  if (values.help || command === undefined) return console.log(usage);
  const names = rest.map(imageName);
  const wanted = names.length === 0 ? imageNames : names;
  switch (command) {
    case 'list':
      return wanted.forEach(list);
    case 'tag':
      return names.forEach((name) => void console.log(imageTag(name)));
    case 'build':
      return buildImages(wanted, say);
    case 'push':
      return pushImages(wanted, values.registry, say);
    case 'prune':
      return pruneImages(say);
    default:
      throw new Error(`unknown command "${command}"\n${usage}`);
  }
}

function list(name: ImageName): void {
  console.log(`${name.padEnd(13)} ${imageTag(name)}  ${imageDefinition(name).description}`);
}

main().catch((error: unknown) => {
  console.error(`images: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
