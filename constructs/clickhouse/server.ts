import type { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import type { PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { oddQuorum } from '../core/validate.ts';
import { ServiceAddress, StatefulWorkload } from '../core/workload.ts';
import { type Cluster, certificateOf, identityOf, podHosts, ports, userSecret, users } from './cluster.ts';
import { keeperConfig, serverConfig, usersConfig } from './server-config.ts';

const KEEPER: Resources = { cpu: '100m', memory: '256Mi', memoryLimit: '512Mi' };

/** Passwords reach the configuration as their SHA-256 only, and only in the memory of the process. */
const START_SERVER = `${users
  .map(
    (user) =>
      `export ${user.toUpperCase()}_SHA256=$(tr -d '\\n' < /secrets/users/${user}/password | sha256sum | cut -c1-64)`,
  )
  .join('\n')}
export INTERSERVER_TOKEN=$(cat /secrets/interserver/token)
exec clickhouse server --config-file=/etc/clickhouse/config.xml`;

/** Numbers of keepers begin with 1; those of pods with 0. */
const START_KEEPER = `export KEEPER_ID=$((POD_INDEX + 1))
exec clickhouse keeper --config-file=/etc/clickhouse/config.xml`;

const podName = { field: 'metadata.name' };

/** Replicas of the vendor's server, and the Keeper that they agree through. */
export function renderServer(scope: Construct, cluster: Cluster, keepers: number): PodNetwork {
  const quorum = renderKeepers(scope, cluster, oddQuorum('keepers', keepers));
  const service = headless(scope, cluster, 'server', `${cluster.name}-pods`, { native: ports.native });
  const hosts = podHosts(cluster, cluster.name, service, cluster.replicas);
  const config = configMap(scope, cluster, 'server', {
    'config.xml': serverConfig(cluster, { servers: hosts, keepers: quorum.hosts, memory: memoryOf(cluster) }),
    'users.xml': usersConfig(cluster),
  });
  const { network } = new StatefulWorkload(scope, 'server', {
    ...identityOf(cluster, 'server'),
    name: cluster.name,
    image: cluster.image,
    command: ['/bin/sh', '-c', START_SERVER],
    env: { POD_NAME: podName, POD_HOST: `$(POD_NAME).${service}.${cluster.namespace}.svc` },
    ports: { https: ports.https, native: ports.native, interserver: ports.interserver, monitoring: ports.health },
    files: [{ path: '/etc/clickhouse', config }],
    secrets: [
      { path: '/secrets/tls', secret: certificateOf(cluster, cluster.name, hosts) },
      { path: '/secrets/interserver', secret: cluster.plan.token(`${cluster.name}-interserver`, cluster.namespace) },
      ...users.map((user) => ({
        path: `/secrets/users/${user}`,
        secret: userSecret(cluster, user, cluster.namespace),
      })),
    ],
    resources: cluster.resources,
    replicas: cluster.replicas,
    serviceName: service,
    volumes: { data: '/var/lib/clickhouse' },
    claims: [claim(cluster, cluster.storage)],
    probes: {
      readiness: { scheme: 'https', port: ports.https, path: '/replicas_status' },
      liveness: { scheme: 'https', port: ports.https, path: '/ping', periodSeconds: 15, failureThreshold: 4 },
      startup: { scheme: 'https', port: ports.https, path: '/ping', periodSeconds: 2, failureThreshold: 300 },
    },
    terminationGraceSeconds: 60,
  });
  network.allowWithin();
  network.allowTo(quorum.network, [ports.keeper]);
  return network;
}

function renderKeepers(scope: Construct, cluster: Cluster, count: number) {
  const name = `${cluster.name}-keeper`;
  const service = headless(scope, cluster, 'keeper', `${name}-pods`, { keeper: ports.keeper, raft: ports.raft });
  const hosts = podHosts(cluster, name, service, count);
  const { network } = new StatefulWorkload(scope, 'keeper', {
    ...identityOf(cluster, 'keeper'),
    image: cluster.image,
    command: ['/bin/sh', '-c', START_KEEPER],
    env: { POD_INDEX: { field: "metadata.labels['apps.kubernetes.io/pod-index']" } },
    ports: { keeper: ports.keeper, raft: ports.raft, monitoring: ports.health },
    files: [
      { path: '/etc/clickhouse', config: configMap(scope, cluster, 'keeper', { 'config.xml': keeperConfig(hosts) }) },
    ],
    secrets: [{ path: '/secrets/tls', secret: certificateOf(cluster, name, hosts) }],
    resources: KEEPER,
    replicas: count,
    serviceName: service,
    volumes: { data: '/var/lib/clickhouse' },
    claims: [claim(cluster, '1Gi')],
    probes: { readiness: { scheme: 'http', port: ports.health, path: '/ready' } },
  });
  network.allowWithin();
  return { hosts, network };
}

function headless(
  scope: Construct,
  cluster: Cluster,
  component: string,
  name: string,
  named: Readonly<Record<string, number>>,
): string {
  new ServiceAddress(scope, `${component}-pods`, {
    ...identityOf(cluster, component),
    name,
    ports: named,
    selector: { 'app.kubernetes.io/instance': cluster.name, 'app.kubernetes.io/component': component },
    headless: true,
  });
  return name;
}

function configMap(scope: Construct, cluster: Cluster, component: string, files: Readonly<Record<string, string>>) {
  return new ContentConfigMap(scope, `${component}-config`, {
    ...identityOf(cluster, component),
    name: `${cluster.name}-${component}-config`,
    files,
  });
}

function claim({ storageClass }: Cluster, size: string) {
  return { name: 'data', size, ...(storageClass !== undefined && { storageClass }) };
}

/** A tenth of the limit is left to what the server does not count. */
function memoryOf({ resources }: Cluster): number {
  return Math.floor(bytesOf('resources.memoryLimit', resources.memoryLimit ?? resources.memory) * 0.9);
}
