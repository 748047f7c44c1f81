import type { Cluster } from './cluster.ts';
import { CliFailure } from './failure.ts';
import { fixOf, type PodSummary, platformSelector, summarisePod } from './pods.ts';
import { formatTable } from './print.ts';

/** Prints every pod of the platform. @throws CliFailure when one of them does not work, with its cause and fix. */
export async function showStatus(cluster: Cluster, json: boolean, write: (text: string) => void): Promise<void> {
  const pods = (await cluster.pods(platformSelector)).map(summarisePod).sort(byName);
  write(json ? `${JSON.stringify({ pods })}\n` : formatPods(pods));
  const troubled = pods.filter(({ healthy }) => !healthy);
  const [first] = troubled;
  if (first !== undefined) {
    const others = troubled.length > 1 ? ` and ${troubled.length - 1} more` : '';
    throw new CliFailure(`${first.namespace}/${first.name} is ${first.state}${others}`, fixOf(first));
  }
}

function byName(left: PodSummary, right: PodSummary): number {
  return `${left.namespace}/${left.name}`.localeCompare(`${right.namespace}/${right.name}`);
}

/** A table of pods and, below it, cause and fix of each that is in trouble. */
export function formatPods(pods: readonly PodSummary[]): string {
  if (pods.length === 0) return 'the platform has no pod on this cluster: soma up\n';
  const rows = pods.map(({ namespace, name, state, restarts }) => [namespace, name, String(restarts), state]);
  const troubles = pods
    .filter(({ healthy }) => !healthy)
    .map(
      (pod) =>
        `\n${pod.namespace}/${pod.name}: ${pod.state}${pod.detail ? `: ${pod.detail}` : ''}\n  fix: ${fixOf(pod)}\n`,
    );
  return formatTable(['NAMESPACE', 'POD', 'RESTARTS', 'STATE'], rows) + troubles.join('');
}
