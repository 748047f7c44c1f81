import { ApiObject } from 'cdk8s';
import type { Construct } from 'constructs';
import { objectLabels } from '../core/labels.ts';
import { canonicalBytes, resourceRequirements } from '../core/quantity.ts';
import { brokerCertificate, type Cluster, heapMegabytes, identityOf, nodeIds, userSecret } from './cluster.ts';
import type { KafkaTopic } from './declaration.ts';
import { ports, sharedSettings } from './server-properties.ts';

/** Version of Kafka that the operator runs: the same as in our image. */
const VERSION = '4.3.1';
/** Port of the brokers' agent, which the operator asks for their state. */
const AGENT = 8443;
const CLUSTER_LABEL = 'strimzi.io/cluster';

/** Labels that the operator gives to the pods that answer clients. */
export function strimziSelector(name: string): Readonly<Record<string, string>> {
  return { [CLUSTER_LABEL]: name, 'strimzi.io/broker-role': 'true' };
}

/** What only this renderer needs. */
export interface StrimziOptions {
  readonly operatorNamespace: string;
}

/**
 * Renders the cluster, its topics and users for the Strimzi operator.
 * Source: https://strimzi.io/docs/operators/latest/configuring.html
 */
export function renderStrimzi(scope: Construct, cluster: Cluster, { operatorNamespace }: StrimziOptions): void {
  const { network, declared, name } = cluster;
  network.allowFromNamespace(operatorNamespace, [ports.controllers, ports.brokers, AGENT]);
  // Strimzi's topic and user operators read their resources.
  network.allowToApiServer();
  const object = (id: string, kind: string, objectName: string, spec: object) =>
    new ApiObject(scope, id, {
      apiVersion: 'kafka.strimzi.io/v1',
      kind,
      metadata: {
        name: objectName,
        labels: { ...objectLabels(scope, identityOf(cluster, 'broker')), [CLUSTER_LABEL]: name },
      },
      spec,
    });
  object('cluster', 'Kafka', name, clusterSpec(cluster));
  object('nodes', 'KafkaNodePool', poolName(cluster), nodePoolSpec(cluster));
  for (const topic of declared.topics)
    object(`topic-${topic.name}`, 'KafkaTopic', `${name}.${topic.name}`, topicSpec(topic));
  for (const { name: user } of declared.users) object(`user-${user}`, 'KafkaUser', user, userSpec(cluster, user));
}

/** A pool's name must be its own within the namespace; pods are named `<cluster>-<pool>-<id>`. */
function poolName({ name }: Pick<Cluster, 'name'>): string {
  return `${name}-broker`;
}

function brokerHosts(cluster: Cluster): string[] {
  const { name, namespace } = cluster;
  return nodeIds(cluster).map((id) => `${name}-${poolName(cluster)}-${id}.${name}-kafka-brokers.${namespace}.svc`);
}

function clusterSpec(cluster: Cluster) {
  const pod = { metadata: { labels: cluster.network.podLabels }, securityContext: podSecurity };
  return {
    kafka: {
      version: VERSION,
      listeners: [clientsListener(cluster)],
      authorization: { type: 'simple' },
      config: operatorSettings(cluster),
      logging: { type: 'inline', loggers: { 'rootLogger.level': 'INFO' } },
    },
    entityOperator: {
      topicOperator: { resources: operatorResources },
      userOperator: { resources: operatorResources },
      template: { pod },
    },
  };
}

/** The region's authority signs what clients see, so they trust the same certificate whoever runs the brokers. */
function clientsListener(cluster: Cluster) {
  const secret = brokerCertificate(cluster, brokerHosts(cluster));
  return {
    name: 'clients',
    port: ports.clients,
    type: 'internal',
    tls: true,
    authentication: { type: 'scram-sha-512' },
    configuration: { brokerCertChainAndKey: { secretName: secret.name, certificate: 'tls.crt', key: 'tls.key' } },
    // Strimzi would admit everybody to this port, and policies add up: ours decides, this one admits the brokers.
    networkPolicyPeers: [{ podSelector: { matchLabels: { [CLUSTER_LABEL]: cluster.name } } }],
  };
}

function operatorSettings({ replication }: Cluster) {
  return { ...sharedSettings(replication), 'ssl.enabled.protocols': 'TLSv1.3' };
}

function nodePoolSpec(cluster: Cluster) {
  const { brokers, storage, storageClass, network } = cluster;
  const heap = heapMegabytes(cluster);
  return {
    replicas: brokers,
    roles: ['controller', 'broker'],
    storage: {
      type: 'jbod',
      volumes: [
        {
          id: 0,
          type: 'persistent-claim',
          size: canonicalBytes('storage', storage),
          kraftMetadata: 'shared',
          deleteClaim: false,
          ...(storageClass !== undefined && { class: storageClass }),
        },
      ],
    },
    resources: resourceRequirements('resources', cluster.resources),
    jvmOptions: {
      '-Xms': `${Math.floor(heap / 2)}m`,
      '-Xmx': `${heap}m`,
      '-XX': { UseG1GC: 'false', UseSerialGC: 'true', TieredStopAtLevel: '1' },
    },
    template: {
      pod: {
        metadata: { labels: network.podLabels },
        securityContext: podSecurity,
        terminationGracePeriodSeconds: 60,
        enableServiceLinks: false,
      },
      kafkaContainer: { securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } } },
    },
  };
}

const podSecurity = { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } };
const operatorResources = resourceRequirements('resources of an operator', {
  cpu: '50m',
  memory: '192Mi',
  memoryLimit: '384Mi',
});

function topicSpec({ name, partitions, replicas, config }: KafkaTopic) {
  return { topicName: name, partitions, replicas, config };
}

/** The operator stores the password that the region's bootstrap generated; it makes none of its own. */
function userSpec(cluster: Cluster, user: string) {
  const { name } = userSecret(cluster, user);
  const own = cluster.declared.acls.filter((grant) => grant.user === user);
  return {
    authentication: {
      type: 'scram-sha-512',
      password: { valueFrom: { secretKeyRef: { name, key: 'password' } } },
    },
    authorization: {
      type: 'simple',
      acls: own.map(({ resource, operations }) => ({
        type: 'allow',
        host: '*',
        resource: { type: resource.type, name: resource.name, patternType: 'literal' },
        operations: operations.map((operation) => `${operation.charAt(0).toUpperCase()}${operation.slice(1)}`),
      })),
    },
  };
}
