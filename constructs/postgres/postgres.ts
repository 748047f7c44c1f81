import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName } from '../core/labels.ts';
import type { ApiServerAddress, Endpoint, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import { ServiceIdentity } from '../core/service-identity.ts';
import { distinct, InvalidPropError, oddQuorum } from '../core/validate.ts';
import { JobWorkload, ServiceAddress, StatefulWorkload } from '../core/workload.ts';
import { Database, type DatabaseProps, databaseDeclaration } from './database.ts';
import { CLUSTER_LABEL, patroniConfig, ROLE_LABEL } from './patroni-config.ts';

const SQL = 5432;
const REST = 8008;

/** Options of {@link Postgres}. */
export interface PostgresProps {
  /** Image `somagent/postgres`: PostgreSQL with Patroni 4. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Job makes the databases. */
  readonly bootstrapImage: string;
  /** Where the superuser, replication and role passwords and certificates are asked for. */
  readonly plan: SecretPlan;
  /** Databases and the role that owns each. */
  readonly databases: readonly DatabaseProps[];
  /**
   * Number of members. An odd number keeps a majority when one is lost; with 1 there is no replication.
   * @default 3
   */
  readonly members?: number;
  /**
   * Space of each member, as a Kubernetes quantity.
   * @default '2Gi'
   */
  readonly storage?: string;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string;
  /**
   * Connections that the server admits in total.
   * @default 200
   */
  readonly maxConnections?: number;
  /** Of each member. @default 100m and 256Mi promised, 768Mi at most */
  readonly resources?: Resources;
  /** Where the Kubernetes API is: Patroni keeps its consensus there. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
}

const MEMBER: Resources = { cpu: '100m', memory: '256Mi', memoryLimit: '768Mi' };

/**
 * PostgreSQL as a Patroni cluster whose consensus store is the Kubernetes API. Quorum-synchronous: an acknowledged
 * commit is on at least two members, and only a member that has it can become primary.
 * Source: https://patroni.readthedocs.io/en/latest/replication_modes.html#quorum-commit-mode
 */
export class Postgres extends Construct implements Endpoint {
  /** DNS name of the primary. */
  readonly host: string;
  readonly port = SQL;
  /** DNS name of the replicas, for reads that may be a moment old. */
  readonly replicasHost: string;
  readonly network: PodNetwork;
  readonly plan: SecretPlan;
  /** The databases, in the order declared. */
  readonly databases: readonly Database[];
  readonly #instance: string;
  readonly #namespace: string;
  readonly #databasesJob: JobWorkload;

  constructor(scope: Construct, id: string, props: PostgresProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#namespace = placeOf(this).namespace;
    this.plan = props.plan;
    const addresses = this.#addresses();
    this.host = addresses.primary.host;
    this.replicasHost = addresses.replicas.host;
    const members = this.#members(props, addresses.pods);
    this.network = members.network;
    this.databases = checkedDatabases(props.databases).map((database) => new Database(this, this.#instance, database));
    this.#databasesJob = this.#makeDatabases(props);
    this.#databasesJob.node.addDependency(members);
  }

  /** One of the declared databases. */
  database(name: string): Database {
    const database = this.databases.find((candidate) => candidate.name === name);
    if (database !== undefined) return database;
    const declared = this.databases.map((candidate) => candidate.name).join(', ');
    throw new InvalidPropError('database', name, declared, `Add it to the databases of "${this.#instance}".`);
  }

  #identity(component: string) {
    return { product: 'postgres', instance: this.#instance, component };
  }

  #addresses() {
    const name = this.#instance;
    const ports = { postgresql: SQL };
    // Without selector: Patroni writes the Endpoints, in the same write that makes a member the leader.
    const primary = new ServiceAddress(this, 'primary', { ...this.#identity('primary'), name, ports });
    const replicas = new ServiceAddress(this, 'replicas', {
      ...this.#identity('replicas'),
      name: `${name}-replicas`,
      ports,
      selector: { [CLUSTER_LABEL]: name, [ROLE_LABEL]: 'replica' },
    });
    const pods = new ServiceAddress(this, 'pods', {
      ...this.#identity('pods'),
      name: `${name}-pods`,
      ports: { ...ports, patroni: REST },
      selector: { [CLUSTER_LABEL]: name },
      headless: true,
    });
    return { primary, replicas, pods };
  }

  #members(props: PostgresProps, pods: ServiceAddress): StatefulWorkload {
    const { members = 3, storage = '2Gi', resources = MEMBER, maxConnections = 200 } = props;
    oddQuorum('members', members);
    bytesOf('storage', storage);
    const identity = this.#identity('member');
    const name = this.#instance;
    const config = new ContentConfigMap(this, 'config', {
      ...identity,
      name: `${name}-patroni`,
      files: { 'patroni.yml': patroniConfig({ scope: name, members, maxConnections, memory: resources.memory }) },
    });
    const workload = new StatefulWorkload(this, 'members', {
      ...identity,
      name,
      image: props.image,
      command: ['start-patroni', '/etc/patroni/patroni.yml'],
      replicas: members,
      serviceName: pods.name,
      podLabels: { [CLUSTER_LABEL]: name },
      env: this.#memberEnvironment(pods),
      ports: { postgresql: SQL, patroni: REST },
      secrets: [{ path: '/secrets/tls', secret: this.#certificate(pods) }],
      files: [{ path: '/etc/patroni', config }],
      scratch: { '/run/postgresql': '16Mi', '/dev/shm': '128Mi' },
      volumes: { data: '/var/lib/postgresql/data' },
      claims: [{ name: 'data', size: storage, ...(props.storageClass && { storageClass: props.storageClass }) }],
      serviceIdentity: this.#patroniRights(),
      resources,
      // Time for a checkpoint and a clean hand-over of the leadership.
      terminationGraceSeconds: 60,
      probes: {
        readiness: { scheme: 'https', port: REST, path: '/readiness', periodSeconds: 2 },
        liveness: { scheme: 'https', port: REST, path: '/liveness', periodSeconds: 10, failureThreshold: 6 },
        // Up means that Patroni answers: a member that is still copying its data must not be restarted.
        startup: { scheme: 'https', port: REST, path: '/liveness', periodSeconds: 2, failureThreshold: 150 },
      },
    });
    workload.network.allowTo(workload.network, [SQL, REST]);
    workload.network.allowToApiServer(props.apiServer);
    return workload;
  }

  #memberEnvironment(pods: ServiceAddress) {
    const secret = (purpose: string, username: string) =>
      this.plan.password(`${this.#instance}-${purpose}`, username, this.#namespace);
    const superuser = secret('superuser', 'postgres');
    const replication = secret('replication', 'replicator');
    const rest = secret('rest', 'patroni');
    return {
      PATRONI_NAME: { field: 'metadata.name' },
      PATRONI_KUBERNETES_NAMESPACE: this.#namespace,
      PATRONI_KUBERNETES_POD_IP: { field: 'status.podIP' },
      // Names, not addresses: certificates are verified against them.
      PATRONI_POSTGRESQL_CONNECT_ADDRESS: `$(PATRONI_NAME).${pods.host}:${SQL}`,
      PATRONI_RESTAPI_CONNECT_ADDRESS: `$(PATRONI_NAME).${pods.host}:${REST}`,
      ...verified('SUPERUSER'),
      ...verified('REPLICATION'),
      PATRONI_SUPERUSER_USERNAME: { secret: superuser, key: 'username' },
      PATRONI_SUPERUSER_PASSWORD: { secret: superuser, key: 'password' },
      PATRONI_REPLICATION_USERNAME: { secret: replication, key: 'username' },
      PATRONI_REPLICATION_PASSWORD: { secret: replication, key: 'password' },
      PATRONI_RESTAPI_USERNAME: { secret: rest, key: 'username' },
      PATRONI_RESTAPI_PASSWORD: { secret: rest, key: 'password' },
    };
  }

  #certificate(pods: ServiceAddress) {
    return this.plan.certificate(
      `${this.#instance}-tls`,
      {
        commonName: this.#instance,
        dnsNames: [this.#instance, this.host, this.replicasHost, `*.${pods.host}`],
        ipAddresses: [],
        // Members are clients of each other's REST interface.
        usages: ['server', 'client'],
      },
      this.#namespace,
    );
  }

  /** Source: https://github.com/patroni/patroni/blob/master/kubernetes/patroni_k8s.yaml */
  #patroniRights(): ServiceIdentity {
    return new ServiceIdentity(this, 'identity', {
      ...this.#identity('member'),
      name: this.#instance,
      rules: [
        { resources: ['endpoints'], verbs: ['create', 'get', 'list', 'patch', 'update', 'watch', 'delete'] },
        { resources: ['pods'], verbs: ['get', 'list', 'patch', 'update', 'watch'] },
        // Patroni puts a Service in front of its own Endpoints, or Kubernetes would collect them.
        { resources: ['services'], verbs: ['create'] },
      ],
    });
  }

  #makeDatabases(props: PostgresProps): JobWorkload {
    const identity = this.#identity('databases');
    const config = new ContentConfigMap(this, 'databases-plan', {
      ...identity,
      name: `${this.#instance}-databases`,
      files: { 'plan.json': databaseDeclaration(this.databases) },
    });
    const job = new JobWorkload(this, 'databases', {
      ...identity,
      image: props.bootstrapImage,
      command: ['node', '/app/main.js', 'databases'],
      env: {
        PLAN: '/etc/soma/plan.json',
        PGHOST: this.host,
        PGPORT: String(SQL),
        PGSSLROOTCERT: '/secrets/ca/ca.crt',
      },
      secrets: [
        { path: '/secrets/ca', secret: this.plan.authorityCertificate(this.#namespace) },
        {
          path: '/secrets/superuser',
          secret: this.plan.password(`${this.#instance}-superuser`, 'postgres', this.#namespace),
        },
        ...this.#roles().map(([role, secret]) => ({ path: `/secrets/roles/${role}`, secret })),
      ],
      files: [{ path: '/etc/soma', config }],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
    job.network.allowTo(this.network, [SQL]);
    return job;
  }

  /** Each role that owns or reads a database, once. */
  #roles(): [string, SecretRef][] {
    const roles = this.databases.flatMap((database) =>
      [database.owner, ...database.readers].map((role) => [role, database.credentials(this.#namespace, role)] as const),
    );
    return [...new Map(roles)];
  }
}

function checkedDatabases(databases: readonly DatabaseProps[]): readonly DatabaseProps[] {
  distinct(
    'databases',
    databases.map(({ name }) => name),
  );
  for (const { name, owner, readers = [] } of databases) {
    sqlIdentifier('database name', name);
    sqlIdentifier('database owner', owner);
    for (const reader of readers) sqlIdentifier(`reader of database ${name}`, reader);
  }
  return databases;
}

function sqlIdentifier(field: string, value: string): void {
  if (/^[a-z_][a-z0-9_]{0,62}$/.test(value)) return;
  throw new InvalidPropError(field, value, 'a plain SQL identifier: a–z, 0–9 and "_"', 'Use for instance "sessions".');
}

/** A role of Patroni verifies the server's certificate whenever it connects over the network. */
function verified(role: 'SUPERUSER' | 'REPLICATION'): Record<string, string> {
  return { [`PATRONI_${role}_SSLMODE`]: 'verify-full', [`PATRONI_${role}_SSLROOTCERT`]: '/secrets/tls/ca.crt' };
}
