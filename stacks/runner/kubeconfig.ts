import { readFileSync } from 'node:fs';
import { KubeConfig } from '@kubernetes/client-node';

/**
 * Reads a kubeconfig.
 * @param kubeconfig path of a file or the text of one; without it the standard places ($KUBECONFIG, ~/.kube/config)
 * @param context name of a context; without it the current one
 * @throws when the file or the context is absent, naming what there is
 */
export function loadKubeconfig(kubeconfig: string | undefined, context: string | undefined): KubeConfig {
  const config = new KubeConfig();
  if (kubeconfig === undefined) config.loadFromDefault();
  else config.loadFromString(kubeconfig.includes('\n') ? kubeconfig : readText(kubeconfig));
  if (context === undefined) return config;
  const names = config.getContexts().map(({ name }) => name);
  if (!names.includes(context)) {
    throw new Error(
      `context '${context}' is not in the kubeconfig; it has ${names.join(', ') || 'none'}. Pass --context with one of these`,
    );
  }
  config.setCurrentContext(context);
  return config;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    throw new Error(`no kubeconfig at ${path}; start the local cluster with 'make up', or pass --kubeconfig`);
  }
}
