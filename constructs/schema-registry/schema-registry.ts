import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName, selectorLabels } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { type Plane, placeOf, planeNamespace } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { distinct } from '../core/validate.ts';
import { type Connectable, JobWorkload, ServiceAddress, StatefulWorkload } from '../core/workload.ts';
import { javaOptions, serverEnvironment } from './server-environment.ts';

const HTTPS = 8443;
const TLS = '/secrets/tls';
const DATA = '/var/lib/registry';

/** All schemas of a subject, oldest first; the position is the version. */
export interface RegisteredSchemas {
  readonly subject: string;
  readonly compatibility: 'BACKWARD';
  /** JSON Schemas. */
  readonly versions: readonly Readonly<Record<string, unknown>>[];
}

/** Options of {@link SchemaRegistry}. */
export interface SchemaRegistryProps {
  /** Image `somagent/schema-registry`: Apicurio Registry. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Job registers the schemas. */
  readonly bootstrapImage: string;
  /** Where the certificate, the key of the tokens and the database's password are asked for. */
  readonly plan: SecretPlan;
  /** Every schema; `planOf().schemas` of @somagent/events. */
  readonly schemas: readonly RegisteredSchemas[];
  /**
   * Space for the database, as a Kubernetes quantity.
   * @default '1Gi'
   */
  readonly storage?: string;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string;
  /**
   * Where the services run that read schemas: their key lies there only.
   * @default 'services'
   */
  readonly readerPlane?: Plane;
  /** The heap is 40 % of the promised memory. @default 30m and 300Mi promised, 448Mi at most */
  readonly resources?: Resources;
}

const SERVER: Resources = { cpu: '30m', memory: '300Mi', memoryLimit: '448Mi' };

/** Apicurio Registry with Confluent's API, and the Job that registers the declared schemas. */
export class SchemaRegistry extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #namespace: string;
  readonly #plan: SecretPlan;

  constructor(scope: Construct, id: string, props: SchemaRegistryProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#namespace = placeOf(this).namespace;
    this.#plan = props.plan;
    const address = new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: selectorLabels(this.#identity('server')),
    });
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}`;
    const server = this.#server(props, address);
    this.network = server.network;
    this.#schemas(props).node.addDependency(server);
  }

  /**
   * What a service that reads schemas is wired to: a key of its own, whose tokens can read and nothing else.
   * @throws Error at connecting a service outside the plane of the readers.
   */
  reader(): Connectable {
    return {
      connect: (client) => {
        client.allowTo(this.network, [HTTPS]);
        const key = this.#plan.signingKey(this.#readerKeyName(), 'RS256', client.namespace);
        return {
          env: {
            SCHEMA_REGISTRY_URL: this.url,
            SCHEMA_REGISTRY_CA_FILE: '/secrets/ca/ca.crt',
            SCHEMA_REGISTRY_KEY_FILE: '/secrets/schema-reader-key/private.pem',
          },
          secrets: [
            { path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) },
            { path: '/secrets/schema-reader-key', secret: key },
          ],
        };
      },
    };
  }

  #identity(component: string) {
    return { product: 'schema-registry', instance: this.#instance, component };
  }

  /** One pod with a volume: the database is a file, and only one process may have it open. */
  #server(props: SchemaRegistryProps, address: ServiceAddress): StatefulWorkload {
    const { storage = '1Gi', storageClass, resources = SERVER } = props;
    const database = this.#plan.password(`${this.#instance}-database`, 'registry', this.#namespace);
    this.#plan.signingKey(this.#keyName(), 'RS256', this.#namespace);
    const verification = this.#plan.publicKey(this.#keyName(), this.#namespace);
    const readers = planeNamespace(placeOf(this).region, props.readerPlane ?? 'services');
    this.#plan.signingKey(this.#readerKeyName(), 'RS256', readers);
    const readerVerification = this.#plan.publicKey(this.#readerKeyName(), this.#namespace);
    return new StatefulWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      replicas: 1,
      serviceName: address.name,
      env: {
        ...serverEnvironment({ host: '0.0.0.0', port: HTTPS, certificateFolder: TLS, dataFolder: DATA }),
        JAVA_OPTS: javaOptions(heapMegabytes(resources)).join(' '),
        QUARKUS_OIDC_PUBLIC_KEY: { secret: verification, key: 'public.pem' },
        QUARKUS_OIDC_READER_PUBLIC_KEY: { secret: readerVerification, key: 'public.pem' },
        REGISTRY_DATASOURCE_USERNAME: { secret: database, key: 'username' },
        REGISTRY_DATASOURCE_PASSWORD: { secret: database, key: 'password' },
      },
      ports: { https: HTTPS },
      secrets: [{ path: TLS, secret: this.#certificate() }],
      volumes: { data: DATA },
      claims: [{ name: 'data', size: storage, ...(storageClass !== undefined && { storageClass }) }],
      resources,
      probes: {
        readiness: { scheme: 'https', port: HTTPS, path: '/health/ready', timeoutSeconds: 5 },
        liveness: { scheme: 'https', port: HTTPS, path: '/health/live', periodSeconds: 15, timeoutSeconds: 5 },
      },
    });
  }

  #keyName(): string {
    return `${this.#instance}-key`;
  }

  #readerKeyName(): string {
    return `${this.#instance}-reader-key`;
  }

  #certificate() {
    return this.#plan.certificate(
      `${this.#instance}-tls`,
      { commonName: this.#instance, dnsNames: [this.#instance, this.host], ipAddresses: [], usages: ['server'] },
      this.#namespace,
    );
  }

  #schemas({ schemas, bootstrapImage }: SchemaRegistryProps): JobWorkload {
    const identity = this.#identity('schemas');
    distinct(
      'schemas',
      schemas.map(({ subject }) => subject),
    );
    const config = new ContentConfigMap(this, 'schemas', {
      ...identity,
      name: `${this.#instance}-schemas`,
      files: { 'plan.json': JSON.stringify({ schemas }) },
    });
    const job = new JobWorkload(this, 'schemas-job', {
      ...identity,
      image: bootstrapImage,
      command: ['node', '/app/main.js', 'schemas'],
      env: {
        PLAN: '/etc/soma/plan.json',
        REGISTRY_URL: this.url,
        REGISTRY_CA_FILE: '/secrets/ca/ca.crt',
        REGISTRY_KEY_FILE: '/secrets/registry-key/private.pem',
      },
      secrets: [
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(this.#namespace) },
        {
          path: '/secrets/registry-key',
          secret: this.#plan.signingKey(this.#keyName(), 'RS256', this.#namespace),
        },
      ],
      files: [{ path: '/etc/soma', config }],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
    job.network.allowTo(this.network, [HTTPS]);
    return job;
  }
}

/** 40 % of the promised memory: the server's classes need more than its data. */
function heapMegabytes({ memory }: Resources): number {
  return Math.floor((bytesOf('resources.memory', memory) * 0.4) / 2 ** 20);
}
