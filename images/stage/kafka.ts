import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from '../cache.ts';
import { run } from '../command.ts';
import { type MavenRequest, mavenJars } from './maven.ts';
import type { Stage } from './stage.ts';

/** What a Kafka node runs from. */
export interface KafkaPrograms {
  /** Folder of Kafka's jars. */
  readonly jars: string;
  /** Folder of our compiled classes. */
  readonly classes: string;
}

/** Fetches Kafka and compiles our start class, both kept by content. Needs mvn and javac 17 or newer. */
export async function kafkaPrograms(request: MavenRequest): Promise<KafkaPrograms> {
  const jars = await mavenJars(request);
  const sources = readdirSync(join(request.folder, 'src'))
    .sort()
    .map((name) => join(request.folder, 'src', name));
  const hash = createHash('sha256').update(jars);
  for (const source of sources) hash.update(readFileSync(source));
  const classes = await cached('kafka-classes', hash.digest('hex').slice(0, 16), async (path) => {
    const strict = ['--release', '17', '-Xlint:all', '-Werror'];
    await run('javac', [...strict, '-cp', join(jars, '*'), '-d', path, ...sources], { log: request.log });
  });
  return { jars, classes };
}

/** Leaves `libs/`, `classes/` and the log settings in the build context. */
export async function stageKafka({ folder, log }: Stage): Promise<void> {
  const { jars, classes } = await kafkaPrograms({ folder, log });
  // Hard links: the files need not be written twice.
  await run('cp', ['-al', jars, join(folder, 'libs')], { log });
  await run('cp', ['-al', classes, join(folder, 'classes')], { log });
  for (const source of ['src', 'pom.xml', 'jars.sha256']) await rm(join(folder, source), { recursive: true });
}
