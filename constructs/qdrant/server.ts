import type { Environment } from '../core/pod.ts';
import type { Resources } from '../core/quantity.ts';
import type { SecretRef } from '../core/secret-plan.ts';
import type { ServiceAddress } from '../core/workload.ts';

/** Port of the API. */
export const HTTPS = 6333;
/** Port of the consensus between nodes. */
export const PEERS = 6335;
/** Folder of the certificate. */
export const TLS = '/secrets/tls';

/** What the two renderers differ in. */
export interface QdrantPod {
  /** @default the image's own */
  readonly command?: readonly string[];
  readonly env: Environment;
  readonly ports: Readonly<Record<string, number>>;
  /** Where the volume is mounted. */
  readonly data: string;
  readonly resources: Resources;
  /** Space of the volume where nobody asks for another. */
  readonly storage: string;
}

/** What a node of Qdrant needs to know of its cluster. */
export interface ServerCluster {
  readonly replicas: number;
  readonly name: string;
  readonly peers: ServiceAddress;
  readonly key: SecretRef;
}

const DATA = '/qdrant/storage';
// The first node begins the cluster, the others join it; a node that has joined before ignores the address.
const START = [
  'self="https://$POD_NAME.$PEERS_HOST:6335/"',
  'if [ "$POD_NAME" = "$FIRST_NODE" ]; then exec /qdrant/qdrant --uri "$self"; fi',
  'exec /qdrant/qdrant --uri "$self" --bootstrap "https://$FIRST_NODE.$PEERS_HOST:6335/"',
].join('\n');

/**
 * Qdrant itself, in distributed mode, everything over TLS. Sources:
 * https://qdrant.tech/documentation/guides/distributed_deployment/, https://qdrant.tech/documentation/guides/configuration/
 */
export function serverPod({ replicas, name, peers, key }: ServerCluster): QdrantPod {
  return {
    command: ['/bin/sh', '-c', START],
    env: {
      POD_NAME: { field: 'metadata.name' },
      FIRST_NODE: `${name}-0`,
      PEERS_HOST: peers.host,
      QDRANT__SERVICE__API_KEY: { secret: key, key: 'token' },
      QDRANT__SERVICE__ENABLE_TLS: 'true',
      QDRANT__TLS__CERT: `${TLS}/tls.crt`,
      QDRANT__TLS__KEY: `${TLS}/tls.key`,
      QDRANT__TLS__CA_CERT: '/secrets/ca/ca.crt',
      // Seconds after which a renewed certificate is read.
      QDRANT__TLS__CERT_TTL: '3600',
      QDRANT__CLUSTER__ENABLED: 'true',
      QDRANT__CLUSTER__P2P__PORT: String(PEERS),
      QDRANT__CLUSTER__P2P__ENABLE_TLS: 'true',
      QDRANT__STORAGE__STORAGE_PATH: DATA,
      QDRANT__STORAGE__SNAPSHOTS_PATH: `${DATA}/snapshots`,
      QDRANT__STORAGE__TEMP_PATH: `${DATA}/temporary`,
      // A collection that asks for nothing has a copy on every second node at least.
      QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR: String(Math.min(replicas, 2)),
      // The root file system is read-only.
      QDRANT_INIT_FILE_PATH: `${DATA}/.initialized`,
      QDRANT__SERVICE__ENABLE_STATIC_CONTENT: 'false',
      QDRANT__TELEMETRY_DISABLED: 'true',
    },
    ports: { https: HTTPS, peers: PEERS },
    data: DATA,
    resources: { cpu: '500m', memory: '1Gi', memoryLimit: '2Gi' },
    storage: '10Gi',
  };
}
