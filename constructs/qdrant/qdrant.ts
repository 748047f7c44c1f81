import { Construct } from 'constructs';
import { instanceName, selectorLabels } from '../core/labels.ts';
import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import { InvalidPropError, integerBetween, oneOf } from '../core/validate.ts';
import { type Connectable, type Connection, ServiceAddress, StatefulWorkload } from '../core/workload.ts';
import { edgePod } from './edge.ts';
import { HTTPS, PEERS, type QdrantPod, serverPod, TLS } from './server.ts';

/** How the API is served: `server` is Qdrant itself, `edge` is services/vector-store over Qdrant's embedded engine. */
export type QdrantRenderer = 'server' | 'edge';

const renderers = ['server', 'edge'] as const satisfies readonly QdrantRenderer[];

/** Options of {@link Qdrant}. */
export interface QdrantProps {
  /** Qdrant's own image (the unprivileged one) for `server`, `somagent/qdrant` for `edge`. */
  readonly image: string;
  /** Where the key and the certificates are asked for. */
  readonly plan: SecretPlan;
  /** @default 'server' */
  readonly renderer?: QdrantRenderer;
  /**
   * Nodes. `edge` is one process and has exactly 1; three and more keep their consensus when one is lost.
   * @default 3 for `server`, 1 for `edge`
   */
  readonly replicas?: number;
  /**
   * Space of each node for collections and their snapshots, as a Kubernetes quantity.
   * @default '10Gi' for `server`, '2Gi' for `edge`
   */
  readonly storage?: string;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string;
  /** Of each node. @default 500m and 1Gi promised, 2Gi at most for `server`; 30m and 128Mi, 768Mi for `edge` */
  readonly resources?: Resources;
}

/**
 * A vector database with Qdrant's REST API over HTTPS, whichever renderer made it. Clients show the key of the Secret
 * `<instance>-api-key`. Source: https://qdrant.tech/documentation/guides/security/
 */
export class Qdrant extends Construct implements Connectable, Endpoint {
  /** DNS name within the cluster. */
  readonly host: string;
  readonly port = HTTPS;
  /** Address within the cluster. */
  readonly url: string;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #plan: SecretPlan;

  constructor(scope: Construct, id: string, props: QdrantProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    const renderer = oneOf('renderer', props.renderer ?? 'server', renderers);
    const replicas = replicasOf(renderer, props.replicas);
    const selector = selectorLabels(this.#identity('server'));
    const address = new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector,
    });
    this.host = address.host;
    this.url = `https://${this.host}:${HTTPS}`;
    // Nodes find each other by name, ready or not.
    const peers = new ServiceAddress(this, 'peers', {
      ...this.#identity('server'),
      name: `${this.#instance}-peers`,
      ports: { https: HTTPS, ...(renderer === 'server' && { peers: PEERS }) },
      selector,
      headless: true,
    });
    const key = this.#key(placeOf(this).namespace);
    const pod = renderer === 'server' ? serverPod({ replicas, peers, name: this.#instance, key }) : edgePod();
    const server = this.#server(props, replicas, peers, pod, key);
    this.network = server.network;
    if (renderer === 'server') this.network.allowWithin();
  }

  /** Admits the client and gives it address, key and authority. */
  connect(client: PodNetwork): Connection {
    client.allowTo(this.network, [HTTPS]);
    return {
      env: {
        QDRANT_URL: this.url,
        QDRANT_API_KEY_FILE: `/secrets/${this.#instance}-api-key/token`,
        QDRANT_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [
        { path: `/secrets/${this.#instance}-api-key`, secret: this.#key(client.namespace) },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  #identity(component: string) {
    return { product: 'qdrant', instance: this.#instance, component };
  }

  #key(namespace: string): SecretRef {
    return this.#plan.token(`${this.#instance}-api-key`, namespace);
  }

  #server(
    props: QdrantProps,
    replicas: number,
    peers: ServiceAddress,
    pod: QdrantPod,
    key: SecretRef,
  ): StatefulWorkload {
    const { storage = pod.storage, storageClass } = props;
    const probe = { scheme: 'https', port: HTTPS } as const;
    return new StatefulWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      ...(pod.command && { command: pod.command }),
      env: pod.env,
      ports: pod.ports,
      secrets: [
        { path: TLS, secret: this.#certificate(peers) },
        { path: '/secrets/api-key', secret: key },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(placeOf(this).namespace) },
      ],
      scratch: { '/tmp': '64Mi' },
      volumes: { data: pod.data },
      claims: [{ name: 'data', size: storage, ...(storageClass !== undefined && { storageClass }) }],
      replicas,
      serviceName: peers.name,
      resources: props.resources ?? pod.resources,
      terminationGraceSeconds: 60,
      probes: {
        readiness: { ...probe, path: '/readyz' },
        liveness: { ...probe, path: '/livez', periodSeconds: 15, timeoutSeconds: 10, failureThreshold: 4 },
      },
    });
  }

  /** Nodes are each other's clients. */
  #certificate(peers: ServiceAddress): SecretRef {
    return this.#plan.certificate(
      `${this.#instance}-tls`,
      {
        commonName: this.#instance,
        dnsNames: [this.#instance, this.host, peers.host, `*.${peers.host}`],
        ipAddresses: [],
        usages: ['server', 'client'],
      },
      placeOf(this).namespace,
    );
  }
}

function replicasOf(renderer: QdrantRenderer, replicas = renderer === 'server' ? 3 : 1): number {
  if (renderer === 'edge' && replicas !== 1) {
    throw new InvalidPropError('replicas', replicas, '1 with the renderer edge', 'Use the renderer server for more.');
  }
  return integerBetween('replicas', replicas, 1, 99);
}
