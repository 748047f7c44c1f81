import { type Cluster, clusterName, ports, users } from './cluster.ts';

/** Blocks whose deduplication tokens a table remembers, as in the embedded engine. */
const REMEMBERED = 10_000;

const OWNER_GRANTS =
  'SHOW, SELECT, INSERT, ALTER TABLE, ALTER VIEW, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, TRUNCATE, OPTIMIZE, CHECK';

/** What a user may read of the server itself; statements of others are not among it. */
const SYSTEM_TABLES = [
  'columns',
  'databases',
  'merge_tree_settings',
  'merges',
  'mutations',
  'one',
  'numbers',
  'parts',
  'partitions',
  'replicas',
  'tables',
];

/** Tables whose rows belong to tenants, as clickhouse_front/engine.py names them. */
const TENANT_TABLES = ['usage', 'session_event', 'verdict', 'lifecycle', 'dead_letter', 'forecast', 'anomaly'];
/** The reader sees the rows of the tenant that its request names, all of them with `*`, and none without. */
const ROWS_OF_READER = `getSetting('log_comment') = '*' OR (tenant != '' AND tenant = getSetting('log_comment'))`;

/** What a user with readonly=1 may set; the same list as that of the embedded engine. */
const READER_SETTINGS = [
  'date_time_output_format',
  'join_use_nulls',
  // Whose rows the request may see: TENANT_TABLES.
  'log_comment',
  'max_block_size',
  'max_execution_time',
  'max_memory_usage',
  'max_result_bytes',
  'max_result_rows',
  'max_rows_to_read',
  'max_threads',
  'output_format_json_quote_64bit_floats',
  'output_format_json_quote_64bit_integers',
  'output_format_json_quote_decimals',
  'output_format_json_quote_denormals',
  'result_overflow_mode',
  'select_sequential_consistency',
];

/** Addresses of the other pods, and how much memory there is. */
export interface ServerPlace {
  readonly servers: readonly string[];
  readonly keepers: readonly string[];
  /** Bytes that the server may use. */
  readonly memory: number;
}

const TLS_SERVER = `<server>
      <certificateFile>/secrets/tls/tls.crt</certificateFile>
      <privateKeyFile>/secrets/tls/tls.key</privateKeyFile>
      <caConfig>/secrets/tls/ca.crt</caConfig>
      <verificationMode>none</verificationMode>
      <loadDefaultCAFile>false</loadDefaultCAFile>
      <disableProtocols>sslv2,sslv3,tlsv1,tlsv1_1</disableProtocols>
    </server>`;

const tls = (clients: 'none' | 'strict') => `<openSSL>
    ${TLS_SERVER.replace('<verificationMode>none', `<verificationMode>${clients}`)}
    <client>
      <certificateFile>/secrets/tls/tls.crt</certificateFile>
      <privateKeyFile>/secrets/tls/tls.key</privateKeyFile>
      <caConfig>/secrets/tls/ca.crt</caConfig>
      <verificationMode>strict</verificationMode>
      <loadDefaultCAFile>false</loadDefaultCAFile>
    </client>
  </openSSL>`;

const logger =
  '<logger><level>information</level><console>1</console><formatting><type>json</type></formatting></logger>';

/**
 * The whole configuration of a server: nothing of the image's own is read, so there is no user `default`. Source:
 * https://clickhouse.com/docs/operations/server-configuration-parameters/settings
 */
export function serverConfig(cluster: Cluster, { servers, keepers, memory }: ServerPlace): string {
  const replica = (host: string) =>
    `<replica><host>${host}</host><port>${ports.native}</port><secure>1</secure></replica>`;
  const keeper = (host: string) => `<node><host>${host}</host><port>${ports.keeper}</port><secure>1</secure></node>`;
  return `<clickhouse>
  ${logger}
  <listen_host>0.0.0.0</listen_host>
  <https_port>${ports.https}</https_port>
  <tcp_port_secure>${ports.native}</tcp_port_secure>
  <interserver_https_port>${ports.interserver}</interserver_https_port>
  <interserver_http_host from_env="POD_HOST"/>
  <interserver_http_credentials><user>interserver</user><password from_env="INTERSERVER_TOKEN"/></interserver_http_credentials>
  <path>/var/lib/clickhouse/</path>
  <tmp_path>/var/lib/clickhouse/tmp/</tmp_path>
  <user_files_path>/var/lib/clickhouse/user_files/</user_files_path>
  <format_schema_path>/var/lib/clickhouse/format_schemas/</format_schema_path>
  <users_config>/etc/clickhouse/users.xml</users_config>
  <user_directories><users_xml><path>/etc/clickhouse/users.xml</path></users_xml></user_directories>
  <default_profile>default</default_profile>
  <default_database>${cluster.database}</default_database>
  <timezone>UTC</timezone>
  <max_server_memory_usage>${memory}</max_server_memory_usage>
  <mark_cache_size>268435456</mark_cache_size>
  <max_concurrent_queries>64</max_concurrent_queries>
  <access_control_improvements>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
    <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
    <users_without_row_policies_can_read_rows>true</users_without_row_policies_can_read_rows>
    <on_cluster_queries_require_cluster_grant>true</on_cluster_queries_require_cluster_grant>
  </access_control_improvements>
  <macros><shard>01</shard><replica from_env="POD_NAME"/></macros>
  <default_replica_path>/clickhouse/tables/{uuid}/{shard}</default_replica_path>
  <default_replica_name>{replica}</default_replica_name>
  <remote_servers>
    <${clusterName}>
      <secret from_env="INTERSERVER_TOKEN"/>
      <shard><internal_replication>true</internal_replication>${servers.map(replica).join('')}</shard>
    </${clusterName}>
  </remote_servers>
  <zookeeper>${keepers.map(keeper).join('')}</zookeeper>
  <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <non_replicated_deduplication_window>${REMEMBERED}</non_replicated_deduplication_window>
    <replicated_deduplication_window>${REMEMBERED}</replicated_deduplication_window>
    <replicated_deduplication_window_seconds>604800</replicated_deduplication_window_seconds>
  </merge_tree>
  <prometheus><endpoint>/metrics</endpoint><port>${ports.health}</port><metrics>true</metrics><asynchronous_metrics>true</asynchronous_metrics><events>true</events></prometheus>
  ${tls('none')}
</clickhouse>
`;
}

/**
 * The users, by the SHA-256 of their passwords, which the start of the container computes. Source:
 * https://clickhouse.com/docs/operations/settings/settings-users
 */
export function usersConfig({ database }: Pick<Cluster, 'database'>): string {
  const system = SYSTEM_TABLES.map((table) => `<query>GRANT SELECT ON system.${table}</query>`).join('');
  const grants = {
    analytics: `<query>GRANT ${OWNER_GRANTS} ON ${database}.*</query><query>GRANT CLUSTER ON *.*</query>`,
    reader: `<query>GRANT SHOW, SELECT ON ${database}.*</query>`,
  };
  const changeable = READER_SETTINGS.map((name) => `<${name}><changeable_in_readonly/></${name}>`).join('');
  const filters = TENANT_TABLES.map((table) => `<${table}><filter>${ROWS_OF_READER}</filter></${table}>`).join('');
  const rows = { analytics: '', reader: `<databases><${database}>${filters}</${database}></databases>` };
  const user = (name: (typeof users)[number]) => `<${name}>
      <password_sha256_hex from_env="${name.toUpperCase()}_SHA256"/>
      <networks><ip>::/0</ip></networks>
      <profile>${name}</profile>
      <quota>default</quota>
      <default_database>${database}</default_database>
      ${rows[name]}
      <grants>${grants[name]}${system}</grants>
    </${name}>`;
  return `<clickhouse>
  <profiles>
    <default>
      <async_insert>0</async_insert>
      <max_execution_time>60</max_execution_time>
      <input_format_values_interpret_expressions>0</input_format_values_interpret_expressions>
      <input_format_values_deduce_templates_of_expressions>0</input_format_values_deduce_templates_of_expressions>
      <distributed_ddl_task_timeout>60</distributed_ddl_task_timeout>
    </default>
    <analytics><profile>default</profile></analytics>
    <reader><profile>default</profile><readonly>1</readonly><constraints>${changeable}</constraints></reader>
  </profiles>
  <quotas><default/></quotas>
  <users>
    ${users.map(user).join('\n    ')}
  </users>
</clickhouse>
`;
}

/** The whole configuration of a keeper. Source: https://clickhouse.com/docs/guides/sre/keeper/clickhouse-keeper */
export function keeperConfig(keepers: readonly string[]): string {
  const member = (host: string, index: number) =>
    `<server><id>${index + 1}</id><hostname>${host}</hostname><port>${ports.raft}</port></server>`;
  return `<clickhouse>
  ${logger}
  <listen_host>0.0.0.0</listen_host>
  <path>/var/lib/clickhouse/</path>
  <keeper_server>
    <tcp_port_secure>${ports.keeper}</tcp_port_secure>
    <server_id from_env="KEEPER_ID"/>
    <log_storage_path>/var/lib/clickhouse/log</log_storage_path>
    <snapshot_storage_path>/var/lib/clickhouse/snapshots</snapshot_storage_path>
    <four_letter_word_white_list>ruok,mntr</four_letter_word_white_list>
    <http_control><port>${ports.health}</port><readiness><endpoint>/ready</endpoint></readiness></http_control>
    <coordination_settings><force_sync>true</force_sync></coordination_settings>
    <raft_configuration><secure>true</secure>${keepers.map(member).join('')}</raft_configuration>
  </keeper_server>
  ${tls('strict')}
</clickhouse>
`;
}
