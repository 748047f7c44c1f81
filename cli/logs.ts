import { Transform, type Writable } from 'node:stream';
import type { V1Pod } from '@kubernetes/client-node';
import type { Cluster } from './cluster.ts';
import { CliFailure, exitCodes } from './failure.ts';
import { platformSelector } from './pods.ts';

export interface LogsOptions {
  readonly namespace?: string;
  readonly follow: boolean;
  readonly tail: number;
}

const nameLabels = ['app.kubernetes.io/name', 'app.kubernetes.io/component', 'app.kubernetes.io/instance'];

/** Pods that a person means by a word: their name, its beginning, or what one of their name labels says. */
export function choosePods(pods: readonly V1Pod[], word: string, namespace: string | undefined): V1Pod[] {
  return pods.filter(({ metadata }) => {
    if (namespace !== undefined && metadata?.namespace !== namespace) return false;
    const labelled = nameLabels.some((label) => metadata?.labels?.[label] === word);
    return labelled || metadata?.name === word || metadata?.name?.startsWith(`${word}-`) === true;
  });
}

/** Words that `logs` understands, for completion and errors. */
function knownNames(pods: readonly V1Pod[]): string[] {
  return [...new Set(pods.flatMap(({ metadata }) => metadata?.labels?.['app.kubernetes.io/name'] ?? []))].sort();
}

/** Prints the logs of all pods that the word means, each line with its pod's name when there are several. */
export async function showLogs(
  cluster: Cluster,
  word: string,
  options: LogsOptions,
  to: Writable,
  signal: AbortSignal,
): Promise<void> {
  const all = await cluster.pods(platformSelector);
  const pods = choosePods(all, word, options.namespace);
  if (pods.length === 0) {
    const names = knownNames(all).join(', ');
    const next =
      names === '' ? 'soma status: no pod of the platform runs' : `use one of: ${names}, or the name of a pod`;
    throw new CliFailure(`no pod is called "${word}"`, next, exitCodes.absent);
  }
  const sources = pods.flatMap((pod) => (pod.spec?.containers ?? []).map(({ name }) => ({ pod, container: name })));
  await Promise.all(sources.map((source) => copyLog(cluster, source, sources.length > 1, options, to, signal)));
}

async function copyLog(
  cluster: Cluster,
  source: { readonly pod: V1Pod; readonly container: string },
  prefixed: boolean,
  options: LogsOptions,
  to: Writable,
  signal: AbortSignal,
): Promise<void> {
  const lines = prefixLines(prefixed ? `${source.pod.metadata?.name} ` : '');
  lines.pipe(to, { end: false });
  const stop = await cluster.log(source.pod, source.container, lines, {
    follow: options.follow,
    tailLines: options.tail,
  });
  signal.addEventListener('abort', stop, { once: true });
  await new Promise<void>((resolve) => {
    lines.once('end', resolve);
    lines.once('error', () => resolve());
    lines.once('close', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Puts a prefix before every line and never splits a line. */
function prefixLines(prefix: string): Transform {
  let rest = '';
  return new Transform({
    transform(chunk, _encoding, done) {
      const lines = (rest + String(chunk)).split('\n');
      rest = lines.pop() ?? '';
      done(null, lines.map((line) => `${prefix}${line}\n`).join(''));
    },
    flush(done) {
      done(null, rest === '' ? '' : `${prefix}${rest}\n`);
    },
  });
}
