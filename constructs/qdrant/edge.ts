import { HTTPS, type QdrantPod, TLS } from './server.ts';

const DATA = '/var/lib/vector-store';

/** services/vector-store: one process over Qdrant's embedded engine, for machines without Qdrant's image. */
export function edgePod(): QdrantPod {
  return {
    env: {
      VECTOR_STORE_DATA: DATA,
      VECTOR_STORE_TLS_DIR: TLS,
      VECTOR_STORE_API_KEY_FILE: '/secrets/api-key/token',
      VECTOR_STORE_PORT: String(HTTPS),
    },
    ports: { https: HTTPS },
    data: DATA,
    // The limit has room for the process that builds an index beside the server.
    resources: { cpu: '30m', memory: '128Mi', memoryLimit: '768Mi' },
    storage: '2Gi',
  };
}
