import { createHash } from 'node:crypto';
import type { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { selectorLabels } from '../core/labels.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretRef } from '../core/secret-plan.ts';
import { JobWorkload, ScheduledWorkload, ServiceAddress, StatefulWorkload } from '../core/workload.ts';
import {
  brokerCertificate,
  brokerName,
  type Cluster,
  heapMegabytes,
  identityOf,
  nodeIds,
  userSecret,
} from './cluster.ts';
import { ADMIN, ports, serverProperties } from './server-properties.ts';

const HEALTH = 8081;
const TLS = '/secrets/tls';
const DATA = '/var/lib/kafka';

/** What only this renderer needs. */
export interface PodsOptions {
  readonly image: string;
  readonly bootstrapImage: string;
  /** When drift is looked for, in the five fields of cron. */
  readonly reconciliation: string;
}

/** Renders the brokers as a StatefulSet, and the Jobs that make topics, users and rights. */
export function renderPods(scope: Construct, cluster: Cluster, options: PodsOptions): void {
  const pods = new ServiceAddress(scope, 'pods', {
    ...identityOf(cluster, 'broker'),
    name: `${cluster.name}-pods`,
    ports: { ...ports },
    selector: selectorLabels(identityOf(cluster, 'broker')),
    headless: true,
  });
  const admin = cluster.plan.password(`${cluster.name}-admin`, ADMIN, cluster.namespace);
  const brokers = renderBrokers(scope, cluster, { pods, admin, image: options.image });
  renderReconciliation(scope, cluster, admin, options).node.addDependency(brokers);
}

interface BrokerParts {
  readonly pods: ServiceAddress;
  readonly admin: SecretRef;
  readonly image: string;
}

function renderBrokers(scope: Construct, cluster: Cluster, { pods, admin, image }: BrokerParts): StatefulWorkload {
  const { name, storageClass } = cluster;
  const hosts = nodeIds(cluster).map((id) => `${name}-${id}.${pods.host}`);
  const config = new ContentConfigMap(scope, 'config', {
    ...identityOf(cluster, 'broker'),
    name: `${name}-config`,
    files: { 'server.properties': properties(cluster, hosts, pods.host) },
  });
  return new StatefulWorkload(scope, 'brokers', {
    ...identityOf(cluster, 'broker'),
    name,
    image,
    replicas: cluster.brokers,
    serviceName: pods.name,
    network: cluster.network,
    env: {
      NODE_ID: { field: "metadata.labels['apps.kubernetes.io/pod-index']" },
      CLUSTER_ID: clusterId(scope, name),
      ADMIN_DIR: '/secrets/admin',
      HEALTH_PORT: String(HEALTH),
      JAVA_OPTS: javaOptions(cluster),
    },
    ports: { ...ports, health: HEALTH },
    secrets: [
      { path: TLS, secret: brokerCertificate(cluster, hosts) },
      { path: '/secrets/admin', secret: admin },
    ],
    files: [{ path: '/etc/kafka', config }],
    volumes: { data: DATA },
    claims: [{ name: 'data', size: cluster.storage, ...(storageClass !== undefined && { storageClass }) }],
    resources: cluster.resources,
    // Time to hand over the leadership of every partition.
    terminationGraceSeconds: 60,
    probes: {
      readiness: { scheme: 'http', port: HEALTH, path: '/readyz', periodSeconds: 3 },
      liveness: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 10, failureThreshold: 6 },
      // A log that was not closed in order is checked at the start: it may take minutes and must not be cut short.
      startup: { scheme: 'http', port: HEALTH, path: '/healthz', periodSeconds: 2, failureThreshold: 150 },
    },
  });
}

function properties(cluster: Cluster, hosts: readonly string[], podsHost: string): string {
  return serverProperties({
    nodes: hosts.map((host, id) => ({ id, host, ports })),
    self: { host: `${cluster.name}-@NODE_ID@.${podsHost}`, ports },
    bind: '0.0.0.0',
    brokerName: brokerName(cluster),
    certificateFolder: TLS,
    dataFolder: `${DATA}/log`,
    replication: cluster.replication,
  });
}

/** The same for all nodes and for ever: 16 bytes of a hash, as Kafka writes identifiers. */
function clusterId(scope: Construct, name: string): string {
  const { region, namespace } = placeOf(scope);
  const hash = createHash('sha256').update(`${region}/${namespace}/${name}`).digest();
  return hash.subarray(0, 16).toString('base64url');
}

function javaOptions(cluster: Cluster): string {
  const heap = heapMegabytes(cluster);
  return [
    `-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xms${Math.floor(heap / 2)}m -Xmx${heap}m -XX:+ExitOnOutOfMemoryError`,
    // A pod that comes back has another address: names are asked for again soon.
    '-Dsun.net.inetaddr.ttl=5 -Dsun.net.inetaddr.negative.ttl=1 -Djava.net.preferIPv4Stack=true',
  ].join(' ');
}

/** Once for each declaration, and again by the clock: what somebody changed by hand is taken back. */
function renderReconciliation(scope: Construct, cluster: Cluster, admin: SecretRef, options: PodsOptions): JobWorkload {
  const { name, declared, plan, namespace } = cluster;
  const config = new ContentConfigMap(scope, 'declaration', {
    ...identityOf(cluster, 'topics'),
    name: `${name}-topics`,
    files: { 'plan.json': JSON.stringify(declared, undefined, 2) },
  });
  const task = {
    ...identityOf(cluster, 'topics'),
    image: options.bootstrapImage,
    command: ['node', '/app/main.js', 'kafka'],
    env: {
      PLAN: '/etc/soma/plan.json',
      KAFKA_BROKERS: `${cluster.host}:${ports.clients}`,
      KAFKA_CA_FILE: '/secrets/ca/ca.crt',
      ADMIN_DIR: '/secrets/admin',
      USERS_DIR: '/secrets/users',
    },
    secrets: [
      { path: '/secrets/ca', secret: plan.authorityCertificate(namespace) },
      { path: '/secrets/admin', secret: admin },
      ...declared.users.map((user) => ({
        path: `/secrets/users/${user.name}`,
        secret: userSecret(cluster, user.name),
      })),
    ],
    files: [{ path: '/etc/soma', config }],
    resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
  };
  const job = new JobWorkload(scope, 'topics', task);
  job.network.allowTo(cluster.network, [ports.clients]);
  const again = { ...task, component: 'drift', network: job.network, schedule: options.reconciliation, retries: 3 };
  new ScheduledWorkload(scope, 'drift', again).node.addDependency(job);
  return job;
}
