import type { Construct } from 'constructs';
import type { PodNetwork } from '../core/pod-network.ts';
import { bytesOf } from '../core/quantity.ts';
import { StatefulWorkload } from '../core/workload.ts';
import { type Cluster, certificateOf, identityOf, ports, userSecret, users } from './cluster.ts';

/** Share of the memory limit that the engine may use; Python, threads and pages of the program need the rest. */
const ENGINE_SHARE = 0.55;

/** One pod with the engine: it can't have replicas, because one process owns the folder. */
export function renderEmbedded(scope: Construct, cluster: Cluster): PodNetwork {
  const { resources, namespace } = cluster;
  const limit = bytesOf('resources.memoryLimit', resources.memoryLimit ?? resources.memory);
  const probe = { scheme: 'http', port: ports.health } as const;
  const { network } = new StatefulWorkload(scope, 'server', {
    ...identityOf(cluster, 'server'),
    name: cluster.name,
    image: cluster.image,
    env: {
      CLICKHOUSE_DATABASE: cluster.database,
      CLICKHOUSE_TLS_DIR: '/secrets/clickhouse-tls',
      CLICKHOUSE_USERS_DIR: '/secrets/users',
      CLICKHOUSE_DATA_DIR: '/var/lib/clickhouse',
      CLICKHOUSE_MAX_MEMORY_MIB: String(Math.floor((limit * ENGINE_SHARE) / 2 ** 20)),
    },
    ports: { https: ports.https, monitoring: ports.health },
    secrets: [
      { path: '/secrets/clickhouse-tls', secret: certificateOf(cluster, cluster.name, []) },
      ...users.map((user) => ({ path: `/secrets/users/${user}`, secret: userSecret(cluster, user, namespace) })),
    ],
    resources,
    replicas: 1,
    serviceName: cluster.name,
    volumes: { data: '/var/lib/clickhouse' },
    claims: [
      {
        name: 'data',
        size: cluster.storage,
        ...(cluster.storageClass !== undefined && { storageClass: cluster.storageClass }),
      },
    ],
    probes: {
      readiness: { ...probe, path: '/readyz' },
      liveness: { ...probe, path: '/healthz', periodSeconds: 15, failureThreshold: 4 },
      // Much data takes its time to be opened.
      startup: { ...probe, path: '/readyz', periodSeconds: 2, failureThreshold: 300 },
    },
    // 1.5 s for the news, 20 s for queries that run, and the engine's own end.
    terminationGraceSeconds: 40,
  });
  return network;
}
