import { Embeddings, Slm, Temporal } from '@somagent/constructs';
import type { DataProducts } from './data-products.ts';
import { apiServer, type Wiring } from './products.ts';

/** What agent work runs on. */
export interface RuntimeProducts {
  readonly temporal: Temporal;
  readonly slm: Slm;
  readonly embeddings: Embeddings;
}

export function runtimeProducts(
  { charts, plan, args }: Wiring,
  { postgres, objectStore }: DataProducts,
): RuntimeProducts {
  const { image, size } = args;
  const temporal = new Temporal(charts.temporal, 'temporal', {
    image: image('temporal'),
    bootstrapImage: image('bootstrap'),
    plan,
    database: postgres.database('temporal'),
    visibility: postgres.database('temporal_visibility'),
    numHistoryShards: size.temporalShards,
    replicas: size.temporalReplicas,
  });
  const slm = new Slm(charts.slm, 'slm', {
    image: image('ray-slm'),
    ...apiServer(args),
    plan,
    renderer: args.rayRenderer,
    workers: size.slmWorkers,
    promoted: objectStore,
    promotedPlaces: size.slmPromotedPlaces,
  });
  const embeddings = new Embeddings(charts.embeddings, 'embeddings', {
    image: image('embeddings'),
    plan,
    replicas: size.embeddingsReplicas,
    ...apiServer(args),
  });
  return { temporal, slm, embeddings };
}
