import { Yaml } from 'cdk8s';
import type { Database } from '../postgres/database.ts';

/** The roles of a Temporal cluster with their ports. Source: common/config/config_template_embedded.yaml of the server */
export const services = {
  frontend: { grpcPort: 7233, membershipPort: 6933 },
  history: { grpcPort: 7234, membershipPort: 6934 },
  matching: { grpcPort: 7235, membershipPort: 6935 },
  worker: { grpcPort: 7239, membershipPort: 6939 },
} as const;

/** A role of a Temporal cluster. */
export type TemporalService = keyof typeof services;

/** Name that every node's certificate carries and that nodes verify of each other. */
export const INTERNODE_NAME = 'temporal-internode';

/** What varies between clusters. */
export interface ServerConfigProps {
  readonly numHistoryShards: number;
  readonly database: Database;
  readonly visibility: Database;
  /** DNS name of the frontend. */
  readonly frontendHost: string;
}

const CERTIFICATE = { certFile: '/secrets/tls/tls.crt', keyFile: '/secrets/tls/tls.key' };
const AUTHORITY = ['/secrets/tls/ca.crt'];

/**
 * The server's configuration file. The first line lets the server fill in the pod's address from its environment; the
 * text in braces is a Go template in raw quotes, because double quotes belong to YAML here.
 */
export function serverConfig(props: ServerConfigProps): string {
  const config = {
    log: { stdout: true, level: 'info' },
    persistence: {
      numHistoryShards: props.numHistoryShards,
      defaultStore: 'default',
      visibilityStore: 'visibility',
      datastores: { default: { sql: sql(props.database) }, visibility: { sql: sql(props.visibility) } },
    },
    global: {
      membership: { maxJoinDuration: '30s', broadcastAddress: '{{ env `POD_IP` }}' },
      tls: tls(props.frontendHost),
    },
    services: Object.fromEntries(
      Object.entries(services).map(([name, ports]) => [name, { rpc: { ...ports, bindOnIP: '0.0.0.0' } }]),
    ),
    clusterMetadata: {
      enableGlobalNamespace: false,
      failoverVersionIncrement: 10,
      masterClusterName: 'active',
      currentClusterName: 'active',
      clusterInformation: {
        active: {
          enabled: true,
          initialFailoverVersion: 1,
          rpcName: 'frontend',
          rpcAddress: `${props.frontendHost}:${services.frontend.grpcPort}`,
        },
      },
    },
    dcRedirectionPolicy: { policy: 'noop' },
    dynamicConfigClient: { filepath: '/etc/soma/dynamic-config.yaml', pollInterval: '60s' },
  };
  return `# enable-template\n${Yaml.stringify(config)}`;
}

/** Settings that the server reads again while it runs. Source: common/dynamicconfig/constants.go of the server */
export function dynamicConfig(): string {
  return Yaml.stringify({
    // What is kept in memory of idle workflows; the defaults are for large machines.
    // Update-with-start needs no setting: it is always on in this version.
    'history.hostLevelCacheMaxSize': [{ value: 4096 }],
    'history.eventsHostLevelCacheMaxSizeBytes': [{ value: 33_554_432 }],
  });
}

function sql(database: Database) {
  return {
    pluginName: 'postgres12_pgx',
    databaseName: database.name,
    connectAddr: `${database.host}:${database.port}`,
    connectProtocol: 'tcp',
    // Only the proof of a password, never the password, and only to a server that proves the same.
    connectAttributes: { require_auth: 'scram-sha-256' },
    user: database.owner,
    // Read at each connection, so that a rotated password needs no restart.
    passwordCommand: { command: 'cat', args: ['/secrets/postgres/password'] },
    maxConns: 10,
    maxIdleConns: 5,
    maxConnLifetime: '1h',
    tls: { enabled: true, caFile: '/secrets/ca/ca.crt', enableHostVerification: true },
  };
}

/** Certificates on both sides of every call: between nodes, and from clients and the system's workers to the frontend. */
function tls(frontendHost: string) {
  const server = { requireClientAuth: true, ...CERTIFICATE, clientCaFiles: AUTHORITY };
  return {
    // Renewed certificates are picked up without a restart.
    refreshInterval: '10m',
    internode: { server, client: { serverName: INTERNODE_NAME, rootCaFiles: AUTHORITY } },
    frontend: { server, client: { serverName: frontendHost, rootCaFiles: AUTHORITY } },
    systemWorker: { ...CERTIFICATE, client: { serverName: frontendHost, rootCaFiles: AUTHORITY } },
  };
}
