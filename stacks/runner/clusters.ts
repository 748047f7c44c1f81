import { type KubernetesApi, openCluster } from './kubernetes-api.ts';
import type { RegisteredProvider } from './monitor.ts';

/** Where the objects of a provider go when the provider leaves something open. */
export interface ClusterDefaults {
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
}

/** One connection per cluster, however many regions share it. */
export class Clusters {
  readonly #defaults: ClusterDefaults;
  readonly #open = new Map<string, KubernetesApi>();

  constructor(defaults: ClusterDefaults) {
    this.#defaults = defaults;
  }

  /** @throws when its kubeconfig or context is absent */
  of(provider: Pick<RegisteredProvider, 'context' | 'kubeconfig'>): KubernetesApi {
    const kubeconfig = provider.kubeconfig ?? this.#defaults.kubeconfig;
    const context = provider.context ?? this.#defaults.context;
    const key = JSON.stringify([kubeconfig, context]);
    const known = this.#open.get(key);
    if (known !== undefined) return known;
    const api = openCluster(kubeconfig, context);
    this.#open.set(key, api);
    return api;
  }

  close(): void {
    for (const api of this.#open.values()) api.close();
  }
}

/** Runs at most `size` actions at once, in the order of arrival. */
export function limited(size: number): <T>(action: () => Promise<T>) => Promise<T> {
  let running = 0;
  const queue: (() => void)[] = [];
  return async (action) => {
    if (running >= size) await new Promise<void>((resolve) => queue.push(resolve));
    running += 1;
    try {
      return await action();
    } finally {
      running -= 1;
      queue.shift()?.();
    }
  };
}
