import type { Identity } from '../core/labels.ts';
import type { PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import type { KafkaDeclaration } from './declaration.ts';
import type { Replication } from './server-properties.ts';

/** What both renderers make a cluster from, with every default resolved. */
export interface Cluster {
  /** Name of the instance. */
  readonly name: string;
  readonly namespace: string;
  /** DNS name that clients connect to first. */
  readonly host: string;
  readonly brokers: number;
  readonly replication: Replication;
  readonly storage: string;
  readonly storageClass: string | undefined;
  readonly resources: Resources;
  readonly declared: KafkaDeclaration;
  readonly network: PodNetwork;
  readonly plan: SecretPlan;
}

/** Labels of a part of the cluster. */
export function identityOf({ name }: Pick<Cluster, 'name'>, component: string): Identity {
  return { product: 'kafka', instance: name, component };
}

/** Numbers of the nodes. */
export function nodeIds({ brokers }: Pick<Cluster, 'brokers'>): number[] {
  return Array.from({ length: brokers }, (_, id) => id);
}

/** Common name of the brokers' certificate: it is what makes a peer a broker. */
export function brokerName({ name }: Pick<Cluster, 'name'>): string {
  return `${name}-broker`;
}

/** Password of a user, where the brokers are. */
export function userSecret({ name, namespace, plan }: Cluster, user: string): SecretRef {
  return plan.password(`${name}-user-${user}`, user, namespace);
}

/** One certificate for all brokers, by every name that clients and brokers call them. */
export function brokerCertificate(cluster: Cluster, hosts: readonly string[]): SecretRef {
  const { name, host, namespace, plan } = cluster;
  return plan.certificate(
    `${name}-tls`,
    {
      commonName: brokerName(cluster),
      dnsNames: [name, host, ...hosts],
      ipAddresses: [],
      // Brokers are clients of each other.
      usages: ['server', 'client'],
    },
    namespace,
  );
}

/** Heap in MiB: 60 % of the promised memory; threads, code and network buffers need the rest. */
export function heapMegabytes({ resources }: Pick<Cluster, 'resources'>): number {
  return Math.floor((bytesOf('resources.memory', resources.memory) * 0.6) / 2 ** 20);
}
