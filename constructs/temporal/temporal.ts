import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName } from '../core/labels.ts';
import type { SecretMount } from '../core/pod.ts';
import { type Endpoint, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { InvalidPropError, integerBetween } from '../core/validate.ts';
import {
  type Connectable,
  type Connection,
  DeploymentWorkload,
  JobWorkload,
  ServiceAddress,
} from '../core/workload.ts';
import type { Database } from '../postgres/database.ts';
import { dynamicConfig, INTERNODE_NAME, serverConfig, services, type TemporalService } from './server-config.ts';

/** Options of {@link Temporal}. */
export interface TemporalProps {
  /** Image `somagent/temporal`. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Jobs apply the schema and register the namespace. */
  readonly bootstrapImage: string;
  /** Where certificates are asked for. */
  readonly plan: SecretPlan;
  /** Where workflows are kept. */
  readonly database: Database;
  /** Where workflows are listed; the same owner as `database`. */
  readonly visibility: Database;
  /**
   * The Temporal namespace of the platform's workflows.
   * @default 'somagent'
   */
  readonly namespace?: string;
  /**
   * Days that a closed workflow is kept.
   * @default 30
   */
  readonly retentionDays?: number;
  /**
   * Partitions of the history. It can never be changed for an existing cluster.
   * @default 128
   */
  readonly numHistoryShards?: number;
  /**
   * Pods of each service.
   * @default 1 each
   */
  readonly replicas?: Readonly<Partial<Record<TemporalService, number>>>;
  /** Of each pod. @default 60m and 128Mi promised, 384Mi at most */
  readonly resources?: Resources;
}

const NODE: Resources = { cpu: '60m', memory: '128Mi', memoryLimit: '384Mi' };
const JOB: Resources = { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' };

/** A Temporal cluster on Postgres; every call carries certificates of both sides. Source: https://docs.temporal.io/self-hosted-guide */
export class Temporal extends Construct implements Connectable, Endpoint {
  /** DNS name of the frontend. */
  readonly host: string;
  readonly port = services.frontend.grpcPort;
  /** The frontend's pods and all others of the cluster. */
  readonly network: PodNetwork;
  /** The Temporal namespace of the platform's workflows. */
  readonly workflowNamespace: string;
  readonly #instance: string;
  readonly #place: string;
  readonly #plan: SecretPlan;
  readonly #database: Database;

  constructor(scope: Construct, id: string, props: TemporalProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#place = placeOf(this).namespace;
    this.#plan = props.plan;
    this.#database = props.database;
    this.workflowNamespace = props.namespace ?? 'somagent';
    this.#sameOwner(props);
    const frontend = this.#frontendAddress();
    this.host = frontend.host;
    this.network = this.#clusterNetwork();
    const schema = this.#schemaJob(props);
    const deployments = this.#servers(props);
    for (const deployment of deployments) deployment.node.addDependency(schema);
    this.#namespaceJob(props).node.addDependency(...deployments, frontend);
  }

  /** Admits the client and gives it the address, the namespace and a client certificate. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [this.port]);
    const secret = this.#plan.certificate(
      `${this.#instance}-client-tls`,
      { commonName: `${this.#instance}-client`, dnsNames: [], ipAddresses: [], usages: ['client'] },
      client.namespace,
    );
    return {
      env: {
        TEMPORAL_ADDRESS: `${this.host}:${this.port}`,
        TEMPORAL_NAMESPACE: this.workflowNamespace,
        TEMPORAL_TLS_DIR: '/secrets/temporal-client',
        TEMPORAL_SERVER_NAME: this.host,
      },
      secrets: [{ path: '/secrets/temporal-client', secret }],
    };
  }

  #identity(component: string) {
    return { product: 'temporal', instance: this.#instance, component };
  }

  #sameOwner({ database, visibility }: TemporalProps): void {
    if (visibility.owner === database.owner && visibility.host === database.host) return;
    throw new InvalidPropError(
      'visibility',
      `${visibility.name} of ${visibility.owner} on ${visibility.host}`,
      `a database of ${database.owner} on ${database.host}`,
      'Declare both databases on the same server with the same owner.',
    );
  }

  #frontendAddress(): ServiceAddress {
    return new ServiceAddress(this, 'frontend-address', {
      ...this.#identity('frontend'),
      name: `${this.#instance}-frontend`,
      ports: { grpc: this.port },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'frontend' },
    });
  }

  /** One group for all services: each of them calls every other one, and all find each other by gossip. */
  #clusterNetwork(): PodNetwork {
    const network = new PodNetwork(this, 'network', { ...this.#identity('cluster'), name: this.#instance });
    const ports = Object.values(services).flatMap(({ grpcPort, membershipPort }) => [grpcPort, membershipPort]);
    network.allowTo(network, ports);
    network.allowTo(this.#database.network, [this.#database.port]);
    return network;
  }

  #servers(props: TemporalProps): DeploymentWorkload[] {
    const { numHistoryShards = 128, resources = NODE } = props;
    const config = new ContentConfigMap(this, 'config', {
      ...this.#identity('cluster'),
      name: `${this.#instance}-config`,
      files: {
        'temporal.yaml': serverConfig({
          numHistoryShards: integerBetween('numHistoryShards', numHistoryShards, 1, 16_384),
          database: props.database,
          visibility: props.visibility,
          frontendHost: this.host,
        }),
        'dynamic-config.yaml': dynamicConfig(),
      },
    });
    const secrets: SecretMount[] = [
      { path: '/secrets/tls', secret: this.#certificate() },
      { path: '/secrets/postgres', secret: this.#database.credentials(this.#place) },
      { path: '/secrets/ca', secret: this.#database.authority(this.#place) },
    ];
    const names = Object.keys(services) as TemporalService[];
    return names.map((service) =>
      this.#server(service, props.replicas?.[service] ?? 1, config, secrets, props.image, resources),
    );
  }

  #server(
    service: TemporalService,
    replicas: number,
    config: ContentConfigMap,
    secrets: readonly SecretMount[],
    image: string,
    resources: Resources,
  ): DeploymentWorkload {
    const { grpcPort, membershipPort } = services[service];
    return new DeploymentWorkload(this, service, {
      ...this.#identity(service),
      image,
      command: ['temporal-server', '--config-file', '/etc/soma/temporal.yaml', 'start', '--service', service],
      replicas,
      network: this.network,
      env: {
        POD_IP: { field: 'status.podIP' },
        // The collector works harder before the limit is reached instead of being killed at it.
        GOMEMLIMIT: `${Math.floor((bytesOf('memoryLimit', resources.memoryLimit ?? resources.memory) / 2 ** 20) * 0.9)}MiB`,
      },
      ports: { grpc: grpcPort, membership: membershipPort },
      secrets,
      files: [{ path: '/etc/soma', config }],
      resources,
      probes: probes(service),
    });
  }

  #certificate() {
    const frontend = `${this.#instance}-frontend`;
    return this.#plan.certificate(
      `${this.#instance}-tls`,
      {
        commonName: frontend,
        dnsNames: [frontend, this.host, INTERNODE_NAME],
        ipAddresses: [],
        usages: ['server', 'client'],
      },
      this.#place,
    );
  }

  #schemaJob(props: TemporalProps): JobWorkload {
    const job = new JobWorkload(this, 'schema', {
      ...this.#identity('schema'),
      image: props.bootstrapImage,
      command: ['node', '/app/main.js', 'temporal-schema'],
      env: {
        PGHOST: this.#database.host,
        PGPORT: String(this.#database.port),
        PGSSLROOTCERT: '/secrets/ca/ca.crt',
        PG_CREDENTIALS_DIR: '/secrets/postgres',
        TEMPORAL_DATABASE: props.database.name,
        TEMPORAL_VISIBILITY_DATABASE: props.visibility.name,
      },
      secrets: [
        { path: '/secrets/postgres', secret: this.#database.credentials(this.#place) },
        { path: '/secrets/ca', secret: this.#database.authority(this.#place) },
      ],
      resources: JOB,
    });
    job.network.allowTo(this.#database.network, [this.#database.port]);
    return job;
  }

  #namespaceJob(props: TemporalProps): JobWorkload {
    return new JobWorkload(this, 'namespace', {
      ...this.#identity('namespace'),
      image: props.bootstrapImage,
      command: ['node', '/app/main.js', 'temporal-namespace'],
      connections: [this],
      env: { RETENTION_DAYS: String(integerBetween('retentionDays', props.retentionDays ?? 30, 1, 3650)) },
      resources: JOB,
    });
  }
}

/** A connection is all that the kubelet can ask for: gRPC health checks of Kubernetes carry no client certificate. */
function probes(service: TemporalService) {
  const { grpcPort: port } = services[service];
  return {
    readiness: { scheme: 'tcp', port } as const,
    liveness: { scheme: 'tcp', port, periodSeconds: 15, failureThreshold: 4 } as const,
  };
}
