import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** What a person said about the cluster to use. */
export interface ClusterChoice {
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
}

/**
 * The kubeconfig to use: the one asked for; with a context alone the standard places, because that asks for a cluster
 * that one has; else that of the local cluster, whatever $KUBECONFIG says, because that is the one `make up` deploys to.
 * @param root folder of the repository
 * @returns undefined for the standard places ($KUBECONFIG, ~/.kube/config)
 */
export function whichKubeconfig({ kubeconfig, context }: ClusterChoice, root: string): string | undefined {
  if (kubeconfig !== undefined || context !== undefined) return kubeconfig;
  const local = join(root, '.soma', 'kubeconfig');
  return existsSync(local) ? local : undefined;
}
