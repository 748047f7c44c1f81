import { type ClusterDefaults, Clusters } from './clusters.ts';
import { deleteObjects } from './delete.ts';
import { Inventory } from './inventory.ts';
import type { RegisteredProvider } from './monitor.ts';
import type { Reporter } from './reporter.ts';

/** Options of {@link destroy}. */
export interface DestroyOptions extends ClusterDefaults {
  readonly stack: string;
  readonly reporter: Reporter;
  readonly timeoutSeconds?: number | undefined;
}

/**
 * Deletes everything that the inventory of each cluster names, whether or not the program still declares it.
 * @param providers the providers of the program; the default cluster when there are none
 * @returns how many objects there were
 */
export async function destroy(providers: readonly RegisteredProvider[], options: DestroyOptions): Promise<number> {
  const clusters = new Clusters(options);
  try {
    const apis = new Set(providers.map((provider) => clusters.of(provider)));
    if (apis.size === 0) apis.add(clusters.of({}));
    let count = 0;
    for (const api of apis) {
      const inventory = new Inventory(api, options.stack);
      const objects = await inventory.read();
      options.reporter.line(`removing ${objects.length} object${objects.length === 1 ? '' : 's'} from ${api.server}`);
      await deleteObjects(objects, api, options);
      await inventory.remove();
      count += objects.length;
    }
    return count;
  } finally {
    clusters.close();
  }
}
