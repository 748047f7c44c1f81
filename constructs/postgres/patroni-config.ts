import { Yaml } from 'cdk8s';
import { bytesOf } from '../core/quantity.ts';

/** Label by which Patroni knows the pods of one cluster. */
export const CLUSTER_LABEL = 'cluster-name';
/** Label that Patroni puts on each pod: `primary` or `replica`. */
export const ROLE_LABEL = 'role';

/** What varies between clusters. */
export interface PatroniConfigProps {
  /** Name of the cluster; its consensus is kept in Endpoints `<scope>`, `<scope>-config` and `<scope>-sync`. */
  readonly scope: string;
  readonly members: number;
  readonly maxConnections: number;
  /** Memory of one member, as a Kubernetes quantity. */
  readonly memory: string;
}

/**
 * Patroni's configuration. Names, passwords and addresses of a member come from its environment.
 * Source: https://patroni.readthedocs.io/en/latest/yaml_configuration.html
 */
export function patroniConfig(props: PatroniConfigProps): string {
  return Yaml.stringify({
    scope: props.scope,
    kubernetes: {
      use_endpoints: true,
      scope_label: CLUSTER_LABEL,
      role_label: ROLE_LABEL,
      labels: { 'app.kubernetes.io/name': 'postgres' },
      ports: [{ name: 'postgresql', port: 5432 }],
    },
    restapi: restApi(),
    ctl: { cacert: '/secrets/tls/ca.crt', certfile: '/secrets/tls/tls.crt', keyfile: '/secrets/tls/tls.key' },
    bootstrap: {
      dcs: { ...consensus(props.members), postgresql: { use_pg_rewind: true, use_slots: true } },
      initdb: ['data-checksums', { encoding: 'UTF8' }, { locale: 'C.UTF-8' }, ...['host', 'local'].map(scram)],
    },
    postgresql: {
      listen: '0.0.0.0:5432',
      // The volume's root is not ours: only a directory of our own can have the mode 0700 that Postgres asks for.
      data_dir: '/var/lib/postgresql/data/pgdata',
      pgpass: '/tmp/pgpass',
      use_unix_socket: true,
      use_unix_socket_repl: true,
      // A new member starts to copy at once; otherwise it waits minutes for the primary's next checkpoint.
      basebackup: [{ checkpoint: 'fast' }],
      remove_data_directory_on_rewind_failure: true,
      remove_data_directory_on_diverged_timelines: true,
      parameters: parameters(props),
      pg_hba: [
        'local all all scram-sha-256',
        'local replication all scram-sha-256',
        'hostssl all all all scram-sha-256',
        'hostssl replication replicator all scram-sha-256',
      ],
    },
  });
}

function scram(kind: string): Record<string, string> {
  return { [`auth-${kind}`]: 'scram-sha-256' };
}

function restApi() {
  return {
    listen: '0.0.0.0:8008',
    certfile: '/secrets/tls/tls.crt',
    keyfile: '/secrets/tls/tls.key',
    cafile: '/secrets/tls/ca.crt',
    // Health checks are read-only and come from the kubelet, which has no certificate; everything that changes
    // something asks for a client certificate and the password as well.
    verify_client: 'optional',
  };
}

/** Source of the rule loop_wait + 2·retry_timeout ≤ ttl: https://patroni.readthedocs.io/en/latest/dynamic_configuration.html */
function consensus(members: number) {
  return {
    ttl: 20,
    loop_wait: 1,
    retry_timeout: 9,
    // A crashed primary is replaced at once and not restarted first.
    primary_start_timeout: 0,
    // The Kubernetes API may be away: the primary stays one as long as it reaches every member.
    failsafe_mode: true,
    ...(members === 1
      ? { synchronous_mode: false }
      : // Strict: once a replica has joined, writes wait while none is left: what is acknowledged is on two disks.
        { synchronous_mode: 'quorum', synchronous_mode_strict: true, synchronous_node_count: 1 }),
  };
}

function parameters({ maxConnections, memory }: PatroniConfigProps) {
  const mebibytes = bytesOf('resources.memory', memory) / 2 ** 20;
  return {
    unix_socket_directories: '/run/postgresql',
    password_encryption: 'scram-sha-256',
    ssl: 'on',
    ssl_cert_file: '/secrets/tls/tls.crt',
    ssl_key_file: '/secrets/tls/tls.key',
    ssl_ca_file: '/secrets/tls/ca.crt',
    ssl_min_protocol_version: 'TLSv1.3',
    max_connections: maxConnections,
    // A quarter of the memory. Source: https://www.postgresql.org/docs/15/runtime-config-resource.html
    shared_buffers: `${Math.floor(mebibytes / 4)}MB`,
    work_mem: '4MB',
    maintenance_work_mem: '32MB',
    max_wal_size: '512MB',
    wal_keep_size: '128MB',
    wal_log_hints: 'on',
    hot_standby: 'on',
    // Clients of a dead pod are noticed within half a minute, not after two hours.
    tcp_keepalives_idle: 10,
    tcp_keepalives_interval: 5,
    tcp_keepalives_count: 4,
  };
}
