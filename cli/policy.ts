import type { V1Pod } from '@kubernetes/client-node';
import { z } from 'zod';
import type { Cluster } from './cluster.ts';
import { CliFailure } from './failure.ts';
import { platformSelector } from './pods.ts';
import { formatTable } from './print.ts';

/** Which policy a pod decides by. */
export interface PodPolicy {
  readonly pod: string;
  /** First digits of the revision, or null when it has none. */
  readonly revision: string | null;
  /** Why it is not what was published; null when it is. */
  readonly drift: string | null;
}

const readiness = z.object({ checks: z.object({ policy: z.string() }) });

/** Prints the revision that each pod decides by. @throws CliFailure when one drifts or two differ. */
export async function showPolicy(cluster: Cluster, json: boolean, write: (text: string) => void): Promise<void> {
  const pods = (await cluster.pods(platformSelector)).filter(asksPolicies);
  const states: PodPolicy[] = [];
  for (const pod of pods) {
    const { body } = await cluster.askPod(pod, `:${healthPort(pod)}`, 'GET', '/readyz');
    states.push(policyOf(`${pod.metadata?.namespace}/${pod.metadata?.name}`, body));
  }
  const rows = states.map(({ pod, revision, drift }) => [pod, revision ?? 'none', drift ?? '']);
  write(json ? `${JSON.stringify({ pods: states })}\n` : formatTable(['POD', 'REVISION', 'DRIFT'], rows));
  const [odd] = states.filter(({ revision, drift }) => drift !== null || revision === null);
  if (odd !== undefined) {
    throw new CliFailure(
      `${odd.pod}: ${odd.drift ?? 'it has no policy'}`,
      'look at its log, and at the Job policy-publish',
    );
  }
  const revisions = [...new Set(states.map(({ revision }) => revision))];
  if (revisions.length < 2) return;
  throw new CliFailure(`pods decide by ${revisions.join(' and ')}`, 'a new bundle takes a second: ask again');
}

/** Reads what a readiness page says about the policy; see `detail` of the engine. */
export function policyOf(pod: string, page: string): PodPolicy {
  const parsed = readiness.safeParse(parse(page));
  const said = parsed.success ? parsed.data.checks.policy : 'its readiness page says nothing of a policy';
  const [, revision, drift] = /^ok: revision ([0-9a-f]+)(?:, drift: (.*))?$/s.exec(said) ?? [];
  return revision === undefined ? { pod, revision: null, drift: said } : { pod, revision, drift: drift ?? null };
}

/** Pods that were given the address of the bundles. */
const asksPolicies = (pod: V1Pod): boolean =>
  pod.status?.phase === 'Running' &&
  healthPort(pod) !== undefined &&
  (pod.spec?.containers ?? []).some(({ env = [] }) => env.some(({ name }) => name === 'POLICY_URL'));

const healthPort = (pod: V1Pod): number | undefined =>
  pod.spec?.containers.flatMap(({ ports = [] }) => ports).find(({ name }) => name === 'health')?.containerPort;

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
