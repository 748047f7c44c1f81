import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import { InvalidPropError } from '../core/validate.ts';
import { type Connectable, type Connection, JobWorkload, ServiceAddress, StatefulWorkload } from '../core/workload.ts';

const HTTPS = 7070;
const SERVER: Resources = { cpu: '20m', memory: '64Mi', memoryLimit: '192Mi' };

/**
 * Makes the folders on the empty volume, and has the server read its certificate again every hour: it does so on SIGHUP
 * only. The second `wait` is for its orderly end after a SIGTERM, which interrupts the first.
 */
const START = `mkdir -p /data/objects /data/meta /data/users || exit
versitygw "$@" & server=$!
trap 'kill $server' TERM INT
(while sleep 3600; do kill -HUP $server || exit; done) &
wait $server
wait $server`;

/** A bucket and who may use it. */
export interface Bucket {
  /** Name, as S3 admits it: a-z, 0-9 and -. */
  readonly name: string;
  /** Users that may read objects. @default none */
  readonly readers?: readonly string[];
  /** Users that may read, write and delete objects. @default none */
  readonly writers?: readonly string[];
}

/** Options of {@link ObjectStore}. */
export interface ObjectStoreProps {
  /** Image `somagent/object-store`. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Job makes users and buckets. */
  readonly bootstrapImage: string;
  /** Where the certificate and the users' keys are asked for. */
  readonly plan: SecretPlan;
  readonly buckets: readonly Bucket[];
  /** Space for objects, as a Kubernetes quantity. @default '2Gi' */
  readonly storage?: string;
  /** Class of the volume. @default the cluster's default class */
  readonly storageClass?: string;
  /** @default 20m and 64Mi promised, 192Mi at most */
  readonly resources?: Resources;
}

/** Buckets behind the S3 API over TLS, each user with a key of its own. Source: https://github.com/versity/versitygw/wiki */
export class ObjectStore extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;
  readonly #buckets: readonly Required<Bucket>[];

  constructor(scope: Construct, id: string, props: ObjectStoreProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    this.#buckets = props.buckets.map((bucket) => ({ readers: [], writers: [], ...bucket }));
    const address = this.#address();
    this.host = address.host;
    const server = this.#server(props);
    this.network = server.network;
    this.#reconciliation(props).node.addDependency(server);
  }

  /**
   * What a client is wired to: `OBJECT_STORE_URL` with the bucket in its path, its key below /secrets/object-store.
   * @throws InvalidPropError when the user is on no list of the bucket.
   */
  bucketUser(bucket: string, user: string): Connectable {
    this.#checkUser(bucket, user);
    return { connect: (client) => this.#connect(client, bucket, user) };
  }

  /** Address of a bucket. */
  bucketUrl(bucket: string): string {
    return `https://${this.host}:${HTTPS}/${bucket}`;
  }

  /** The access key and secret key of a user, as `username` and `password`. */
  credentials(user: string, namespace: string): SecretRef {
    return this.#plan.password(`${this.#instance}-user-${user}`, user, namespace);
  }

  #connect(client: PodNetwork, bucket: string, user: string): Connection {
    client.allowTo(this.network, [HTTPS]);
    return {
      env: {
        OBJECT_STORE_URL: this.bucketUrl(bucket),
        OBJECT_STORE_CREDENTIALS_DIR: '/secrets/object-store',
        OBJECT_STORE_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [
        { path: '/secrets/object-store', secret: this.credentials(user, client.namespace) },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  #checkUser(name: string, user: string): void {
    const bucket = this.#buckets.find((each) => each.name === name);
    const users = bucket === undefined ? [] : [...bucket.readers, ...bucket.writers];
    if (users.includes(user)) return;
    const fix = 'Name the user among its readers or writers in the props of the store.';
    throw new InvalidPropError(`user of bucket ${name}`, user, users.join(', ') || 'no user yet', fix);
  }

  #identity(component: string) {
    return { product: 'object-store', instance: this.#instance, component };
  }

  #administrator(): SecretRef {
    return this.#plan.password(`${this.#instance}-admin`, this.#instance, placeOf(this).namespace);
  }

  #address(): ServiceAddress {
    return new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
    });
  }

  #server(props: ObjectStoreProps): StatefulWorkload {
    const { resources = SERVER, storage = '2Gi', storageClass } = props;
    const administrator = this.#administrator();
    const memory = bytesOf('memoryLimit', resources.memoryLimit ?? resources.memory);
    const flags = ['--port', `:${HTTPS}`, '--cert', '/secrets/tls/tls.crt', '--key', '/secrets/tls/tls.key'];
    // Keys of users are asked for in each request: a rotated one is not good for another two minutes.
    const users = ['--iam-dir', '/data/users', '--iam-cache-disable'];
    // Without it every request costs a TLS handshake: each service asks once a second for its policies.
    const connections = ['--keep-alive'];
    // What S3 says about an object lies beside it: not every file system keeps attributes.
    const files = ['posix', '--sidecar', '/data/meta', '/data/objects'];
    return new StatefulWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: [
        '/bin/sh',
        '-c',
        START,
        'versitygw',
        ...flags,
        ...users,
        '--health',
        '/healthz',
        '--quiet',
        ...connections,
        ...files,
      ],
      env: {
        ROOT_ACCESS_KEY: { secret: administrator, key: 'username' },
        ROOT_SECRET_KEY: { secret: administrator, key: 'password' },
        // The collector works harder before the limit is reached instead of being killed at it.
        GOMEMLIMIT: `${Math.floor((memory / 2 ** 20) * 0.9)}MiB`,
      },
      ports: { https: HTTPS },
      secrets: [{ path: '/secrets/tls', secret: this.#certificate() }],
      replicas: 1,
      serviceName: this.#instance,
      volumes: { data: '/data' },
      claims: [{ name: 'data', size: storage, ...(storageClass !== undefined && { storageClass }) }],
      resources,
      probes: {
        readiness: { scheme: 'https', port: HTTPS, path: '/healthz' },
        liveness: { scheme: 'https', port: HTTPS, path: '/healthz', periodSeconds: 15, failureThreshold: 4 },
      },
    });
  }

  #certificate(): SecretRef {
    return this.#plan.certificate(
      `${this.#instance}-tls`,
      { commonName: this.#instance, dnsNames: [this.#instance, this.host], ipAddresses: [], usages: ['server'] },
      placeOf(this).namespace,
    );
  }

  #reconciliation({ bootstrapImage }: ObjectStoreProps): JobWorkload {
    const { namespace } = placeOf(this);
    const names = [...new Set(this.#buckets.flatMap(({ readers, writers }) => [...readers, ...writers]))].sort();
    const plan = new ContentConfigMap(this, 'plan', {
      ...this.#identity('buckets'),
      name: `${this.#instance}-plan`,
      files: { 'plan.json': JSON.stringify({ users: names, buckets: this.#buckets }, undefined, 2) },
    });
    const job = new JobWorkload(this, 'buckets', {
      ...this.#identity('buckets'),
      image: bootstrapImage,
      command: ['node', '/app/main.js', 'object-store'],
      env: { PLAN: '/etc/soma/plan.json', OBJECT_STORE_URL: `https://${this.host}:${HTTPS}` },
      files: [{ path: '/etc/soma', config: plan }],
      secrets: [
        { path: '/secrets/admin', secret: this.#administrator() },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(namespace) },
        ...names.map((user) => ({ path: `/secrets/users/${user}`, secret: this.credentials(user, namespace) })),
      ],
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
    job.network.allowTo(this.network, [HTTPS]);
    job.node.addDependency(plan);
    return job;
  }
}
