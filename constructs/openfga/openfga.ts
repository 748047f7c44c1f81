import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import { integerBetween } from '../core/validate.ts';
import {
  type Connectable,
  type Connection,
  DeploymentWorkload,
  JobWorkload,
  ServiceAddress,
} from '../core/workload.ts';
import type { Database } from '../postgres/database.ts';

const HTTPS = 8443;
/** Only the server's own HTTP front speaks gRPC, over loopback and with TLS. */
const GRPC = '127.0.0.1:8081';

/** Options of {@link OpenFga}. */
export interface OpenFgaProps {
  /** Image `somagent/openfga`. */
  readonly image: string;
  /** Image `somagent/relations`, whose Job migrates the database. */
  readonly relationsImage: string;
  /** Where the certificate and the preshared key are asked for. */
  readonly plan: SecretPlan;
  /** Where stores, models and tuples are kept. */
  readonly database: Database;
  /**
   * Name of the platform's store.
   * @default 'somagent'
   */
  readonly store?: string;
  /**
   * Connections to the database of each pod.
   * @default 8
   */
  readonly maxConnections?: number;
  /** Number of pods. @default 1 */
  readonly replicas?: number;
  /** Of each pod. @default 30m and 96Mi promised, 256Mi at most */
  readonly resources?: Resources;
}

const SERVER: Resources = { cpu: '30m', memory: '96Mi', memoryLimit: '256Mi' };

/** OpenFGA on Postgres, over TLS and with a preshared key only. Source: https://openfga.dev/docs/getting-started/setup-openfga/configure-openfga */
export class OpenFga extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  readonly network: PodNetwork;
  /** Name of the platform's store. */
  readonly store: string;
  readonly #instance: string;
  readonly #namespace: string;
  readonly #plan: SecretPlan;

  constructor(scope: Construct, id: string, props: OpenFgaProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#namespace = placeOf(this).namespace;
    this.#plan = props.plan;
    this.store = props.store ?? 'somagent';
    const address = this.#address();
    this.host = address.host;
    const migration = this.#migration(props);
    const server = this.#server(props);
    server.node.addDependency(migration);
    this.network = server.network;
  }

  /** What a client is wired to: the address, the key as a file, and the name of the store. */
  client(): Connectable {
    return { connect: (client) => this.#connect(client) };
  }

  #connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [HTTPS]);
    return {
      env: {
        OPENFGA_URL: `https://${this.host}:${HTTPS}`,
        OPENFGA_TOKEN_FILE: '/secrets/openfga/token',
        OPENFGA_CA_FILE: '/secrets/ca/ca.crt',
        OPENFGA_STORE: this.store,
      },
      secrets: [
        { path: '/secrets/openfga', secret: this.#key(client.namespace) },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  #identity(component: string) {
    return { product: 'openfga', instance: this.#instance, component };
  }

  #key(namespace: string): SecretRef {
    return this.#plan.token(`${this.#instance}-key`, namespace);
  }

  #address(): ServiceAddress {
    return new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
    });
  }

  #migration({ relationsImage, database }: OpenFgaProps): JobWorkload {
    return new JobWorkload(this, 'migrate', {
      ...this.#identity('migrate'),
      image: relationsImage,
      command: ['node', '/app/main.js', 'migrate'],
      connections: [database],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
  }

  #server(props: OpenFgaProps): DeploymentWorkload {
    const { resources = SERVER } = props;
    const server = new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: ['openfga', 'run'],
      replicas: props.replicas ?? 1,
      env: this.#environment(props, resources),
      ports: { https: HTTPS },
      secrets: [
        { path: '/secrets/tls', secret: this.#certificate() },
        { path: '/secrets/ca', secret: props.database.authority(this.#namespace) },
      ],
      resources,
      probes: {
        readiness: { scheme: 'https', port: HTTPS, path: '/healthz' },
        liveness: { scheme: 'https', port: HTTPS, path: '/healthz', periodSeconds: 15, failureThreshold: 4 },
      },
    });
    server.network.allowTo(props.database.network, [props.database.port]);
    return server;
  }

  #environment({ database, maxConnections = 8 }: OpenFgaProps, resources: Resources) {
    const role = database.credentials(this.#namespace);
    const memory = bytesOf('memoryLimit', resources.memoryLimit ?? resources.memory);
    const connections = String(integerBetween('maxConnections', maxConnections, 2, 200));
    return {
      OPENFGA_HTTP_ADDR: `0.0.0.0:${HTTPS}`,
      ...this.#tls('HTTP'),
      OPENFGA_GRPC_ADDR: GRPC,
      ...this.#tls('GRPC'),
      OPENFGA_AUTHN_METHOD: 'preshared',
      OPENFGA_AUTHN_PRESHARED_KEYS: { secret: this.#key(this.#namespace), key: 'token' },
      OPENFGA_DATASTORE_ENGINE: 'postgres',
      OPENFGA_DATASTORE_URI: `postgres://${database.host}:${database.port}/${database.name}?sslmode=verify-full&sslrootcert=/secrets/ca/ca.crt`,
      OPENFGA_DATASTORE_USERNAME: { secret: role, key: 'username' },
      OPENFGA_DATASTORE_PASSWORD: { secret: role, key: 'password' },
      OPENFGA_DATASTORE_MAX_OPEN_CONNS: connections,
      OPENFGA_DATASTORE_MAX_IDLE_CONNS: connections,
      // A web page for trying models out, and figures over plain HTTP: neither belongs here.
      OPENFGA_PLAYGROUND_ENABLED: 'false',
      OPENFGA_METRICS_ENABLED: 'false',
      OPENFGA_LOG_FORMAT: 'json',
      OPENFGA_LOG_LEVEL: 'warn',
      // The collector works harder before the limit is reached instead of being killed at it.
      GOMEMLIMIT: `${Math.floor((memory / 2 ** 20) * 0.9)}MiB`,
    };
  }

  #tls(front: 'HTTP' | 'GRPC') {
    return {
      [`OPENFGA_${front}_TLS_ENABLED`]: 'true',
      [`OPENFGA_${front}_TLS_CERT`]: '/secrets/tls/tls.crt',
      [`OPENFGA_${front}_TLS_KEY`]: '/secrets/tls/tls.key',
    };
  }

  #certificate(): SecretRef {
    return this.#plan.certificate(
      `${this.#instance}-tls`,
      {
        commonName: this.#instance,
        dnsNames: [this.#instance, this.host],
        // For the server's own HTTP front, which verifies its gRPC side too.
        ipAddresses: ['127.0.0.1'],
        usages: ['server'],
      },
      this.#namespace,
    );
  }
}
