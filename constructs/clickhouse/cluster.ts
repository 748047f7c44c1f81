import type { Identity } from '../core/labels.ts';
import type { Resources } from '../core/quantity.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';

/** Users of the database. There is no other one, and none without a password. */
export const users = ['analytics', 'reader'] as const;

/** `analytics` owns the database, `reader` may SELECT. */
export type ClickHouseUser = (typeof users)[number];

/** Ports of the pods. All but `health` speak TLS. */
export const ports = {
  https: 8443,
  /** Between servers: distributed statements. */
  native: 9440,
  /** Between servers: parts of tables. */
  interserver: 9010,
  keeper: 9281,
  /** Between keepers. */
  raft: 9234,
  health: 8081,
} as const;

/** Name of the cluster in `ON CLUSTER`. */
export const clusterName = 'somagent';

/** What both renderers make a server from, with every default resolved. */
export interface Cluster {
  /** Name of the instance. */
  readonly name: string;
  readonly namespace: string;
  /** DNS name that clients connect to. */
  readonly host: string;
  readonly database: string;
  readonly image: string;
  readonly replicas: number;
  readonly storage: string;
  readonly storageClass: string | undefined;
  readonly resources: Resources;
  readonly plan: SecretPlan;
}

/** Labels of a part of the cluster. */
export function identityOf({ name }: Pick<Cluster, 'name'>, component: string): Identity {
  return { product: 'clickhouse', instance: name, component };
}

/** User name and password of a user, in a namespace. */
export function userSecret(
  { name, plan }: Pick<Cluster, 'name' | 'plan'>,
  user: ClickHouseUser,
  namespace: string,
): SecretRef {
  return plan.password(`${name}-${user}`, user, namespace);
}

/** One certificate for all pods of a component, by every name that they are called. */
export function certificateOf(cluster: Cluster, component: string, hosts: readonly string[]): SecretRef {
  const { plan, namespace } = cluster;
  const dnsNames = [component, `${component}.${namespace}.svc`, ...hosts];
  const request = { commonName: component, dnsNames, ipAddresses: [], usages: ['server', 'client'] } as const;
  return plan.certificate(`${component}-tls`, request, namespace);
}

/** DNS names of pods behind a headless Service, as they call each other. */
export function podHosts(
  { namespace }: Pick<Cluster, 'namespace'>,
  set: string,
  service: string,
  count: number,
): string[] {
  return Array.from({ length: count }, (_, index) => `${set}-${index}.${service}.${namespace}.svc`);
}
