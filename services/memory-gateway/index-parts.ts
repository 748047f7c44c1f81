import { createPool, type Logger, TenantDatabase } from '@somagent/kit';
import type { ReindexConfig } from './config.ts';
import type { Tables } from './database.ts';
import { Embeddings } from './embeddings.ts';
import { VectorStore } from './vector-store.ts';

/** What vectors are made with, by configuration: for `serve` and `reindex` alike. */
export function openIndex(config: ReindexConfig, log: Logger) {
  const database = new TenantDatabase<Tables>(createPool(config, log));
  const embeddings = new Embeddings({
    url: config.EMBEDDINGS_URL,
    model: config.EMBEDDINGS_MODEL,
    dimensions: config.EMBEDDINGS_DIMENSIONS,
    tokenFile: config.EMBEDDINGS_TOKEN_FILE,
    caFile: config.EMBEDDINGS_CA_FILE,
  });
  const vectors = new VectorStore({
    url: config.QDRANT_URL,
    apiKeyFile: config.QDRANT_API_KEY_FILE,
    caFile: config.QDRANT_CA_FILE,
    model: config.EMBEDDINGS_MODEL,
    dimensions: config.EMBEDDINGS_DIMENSIONS,
    dedicated: config.DEDICATED_TENANTS,
  });
  return { database, embeddings, vectors };
}
