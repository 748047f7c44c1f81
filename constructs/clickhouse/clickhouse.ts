import { Construct } from 'constructs';
import { instanceName } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { integerBetween, oneOf } from '../core/validate.ts';
import { type Connectable, type Connection, ServiceAddress } from '../core/workload.ts';
import { type ClickHouseUser, type Cluster, clusterName, identityOf, ports, userSecret, users } from './cluster.ts';
import { renderEmbedded } from './embedded.ts';
import { renderServer } from './server.ts';

const renderers = ['embedded', 'server'] as const;

/** `embedded`: one pod with the engine behind the same HTTP protocol. `server`: replicas of the server, and its Keeper. */
export type ClickHouseRenderer = (typeof renderers)[number];

/** Options of {@link ClickHouse}. */
export interface ClickHouseProps {
  /**
   * `embedded`: image `somagent/clickhouse`. `server`: the vendor's `clickhouse/clickhouse-server`, by tag or digest; it
   * has the Keeper too.
   */
  readonly image: string;
  /** Where passwords and certificates are asked for. */
  readonly plan: SecretPlan;
  /** @default 'embedded' */
  readonly renderer?: ClickHouseRenderer;
  /** Servers that all have all data; the renderer `embedded` has one. @default 2 for `server`, 1 for `embedded` */
  readonly replicas?: number;
  /** Keepers of the renderer `server`. An odd number keeps a quorum when one is lost. @default 3 */
  readonly keepers?: number;
  /** Space for the data of each server, as a Kubernetes quantity. @default '4Gi' */
  readonly storage?: string;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string;
  /** Of each server. @default 30m and 320Mi promised, 1Gi at most for `embedded`; 500m and 2Gi, 4Gi for `server` */
  readonly resources?: Resources;
}

const DATABASE = 'analytics';
const DEFAULTS: Readonly<Record<ClickHouseRenderer, Resources>> = {
  embedded: { cpu: '30m', memory: '320Mi', memoryLimit: '1Gi' },
  server: { cpu: '500m', memory: '2Gi', memoryLimit: '4Gi' },
};

/**
 * ClickHouse over HTTPS with the database `analytics` and two users, each with a password of its own.
 * Source: https://clickhouse.com/docs/interfaces/http
 */
export class ClickHouse extends Construct implements Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = ports.https;
  /** Address for clients. */
  readonly url: string;
  /** Name of the one database. */
  readonly database = DATABASE;
  readonly network: PodNetwork;
  readonly #cluster: Cluster;
  readonly #renderer: ClickHouseRenderer;

  constructor(scope: Construct, id: string, props: ClickHouseProps) {
    super(scope, id);
    this.#renderer = oneOf('renderer', props.renderer ?? 'embedded', renderers);
    this.#cluster = this.#resolve(props);
    this.host = this.#cluster.host;
    this.url = `https://${this.host}:${ports.https}`;
    this.network = this.#render(props);
    new ServiceAddress(this, 'address', {
      ...identityOf(this.#cluster, 'server'),
      name: this.#cluster.name,
      ports: { https: ports.https },
      selector: {
        'app.kubernetes.io/instance': this.#cluster.name,
        'app.kubernetes.io/component': 'server',
      },
    });
  }

  /**
   * What a client is wired to. `analytics` gives `CLICKHOUSE_CREDENTIALS_DIR`, `reader` gives
   * `CLICKHOUSE_READER_CREDENTIALS_DIR`, both the address and the authority; with replicas also `CLICKHOUSE_CLUSTER`, the
   * name for ON CLUSTER, which says that tables have to be replicated ones.
   */
  user(user: ClickHouseUser): Connectable {
    const checked = oneOf('user', user, users);
    return { connect: (client) => this.#connect(client, checked) };
  }

  #connect(client: PodNetwork, user: ClickHouseUser): Connection {
    client.allowTo(this.network, [ports.https]);
    const folder = `/secrets/clickhouse-${user}`;
    const variable = user === 'reader' ? 'CLICKHOUSE_READER_CREDENTIALS_DIR' : 'CLICKHOUSE_CREDENTIALS_DIR';
    return {
      env: {
        CLICKHOUSE_URL: this.url,
        CLICKHOUSE_CA_FILE: '/secrets/ca/ca.crt',
        [variable]: folder,
        ...(this.#renderer === 'server' && { CLICKHOUSE_CLUSTER: clusterName }),
      },
      secrets: [
        { path: folder, secret: userSecret(this.#cluster, user, client.namespace) },
        { path: '/secrets/ca', secret: this.#cluster.plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  #resolve(props: ClickHouseProps): Cluster {
    const name = instanceName(this);
    const { namespace } = placeOf(this);
    const [usual, most] = this.#renderer === 'server' ? [2, 9] : [1, 1];
    return {
      name,
      namespace,
      host: `${name}.${namespace}.svc`,
      database: DATABASE,
      image: props.image,
      replicas: integerBetween('replicas', props.replicas ?? usual, 1, most),
      storage: props.storage ?? '4Gi',
      storageClass: props.storageClass,
      resources: props.resources ?? DEFAULTS[this.#renderer],
      plan: props.plan,
    };
  }

  #render({ keepers = 3 }: ClickHouseProps): PodNetwork {
    return this.#renderer === 'server'
      ? renderServer(this, this.#cluster, keepers)
      : renderEmbedded(this, this.#cluster);
  }
}
