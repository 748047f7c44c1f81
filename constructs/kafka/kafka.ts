import { Construct } from 'constructs';
import { instanceName, selectorLabels } from '../core/labels.ts';
import { type Endpoint, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { InvalidPropError, oddQuorum, oneOf } from '../core/validate.ts';
import { type Connectable, type Connection, ServiceAddress } from '../core/workload.ts';
import { type Cluster, identityOf } from './cluster.ts';
import { checkedDeclaration, type KafkaDeclaration } from './declaration.ts';
import { renderPods } from './pods.ts';
import { ports } from './server-properties.ts';
import { renderStrimzi, strimziSelector } from './strimzi.ts';

const renderers = ['pods', 'strimzi'] as const;

/** `strimzi`: resources for the operator. `pods`: the same brokers as a StatefulSet, where there is no operator. */
export type KafkaRenderer = (typeof renderers)[number];

/** Options of {@link Kafka}. */
export interface KafkaProps {
  /** Image `somagent/kafka`; unused by the renderer `strimzi`, whose operator brings its own. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Job makes topics, users and rights; unused by the renderer `strimzi`. */
  readonly bootstrapImage: string;
  /** Where passwords and certificates are asked for. */
  readonly plan: SecretPlan;
  /** Every topic, user and grant. */
  readonly declared: KafkaDeclaration;
  /** @default 'pods' */
  readonly renderer?: KafkaRenderer;
  /**
   * Number of nodes, each broker and controller in one. An odd number keeps a quorum when one is lost.
   * @default 3
   */
  readonly brokers?: number;
  /**
   * Space for the log of each broker, as a Kubernetes quantity.
   * @default '2Gi'
   */
  readonly storage?: string;
  /** @default the cluster's default StorageClass */
  readonly storageClass?: string;
  /** Of each broker. The heap is 60 % of the promised memory. @default 50m and 320Mi promised, 640Mi at most */
  readonly resources?: Resources;
  /**
   * When drift is looked for and repaired, in the five fields of cron, UTC; Strimzi's operators do it all the time.
   * @default '23 * * * *', every hour
   */
  readonly reconciliation?: string;
  /** Namespace of the Strimzi operator, which is admitted to the brokers. @default 'strimzi-system' */
  readonly operatorNamespace?: string;
}

const BROKER: Resources = { cpu: '50m', memory: '320Mi', memoryLimit: '640Mi' };

/**
 * A Kafka cluster in KRaft mode. Clients: TLS and SCRAM-SHA-512; between brokers: certificates; whoever has no grant may
 * do nothing. It can't be published: clients of a broker must reach it under its own name.
 * Source: https://kafka.apache.org/43/operations/kraft/
 */
export class Kafka extends Construct implements Endpoint {
  /** DNS name within the cluster of all brokers that are ready. */
  readonly host: string;
  readonly port = ports.clients;
  /** Where clients connect first: `host:port`, TLS. */
  readonly bootstrapServers: string;
  readonly network: PodNetwork;
  /** Number of brokers. */
  readonly brokers: number;
  /** Every user that was declared. */
  readonly users: readonly string[];
  readonly #instance: string;
  readonly #plan: SecretPlan;

  constructor(scope: Construct, id: string, props: KafkaProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    this.brokers = oddQuorum('brokers', props.brokers ?? 3);
    const declared = checkedDeclaration(props.declared, this.brokers);
    this.users = declared.users.map(({ name }) => name);
    const identity = identityOf({ name: this.#instance }, 'broker');
    this.network = new PodNetwork(this, 'network', { ...identity, name: this.#instance });
    this.network.allowTo(this.network, Object.values(ports));
    const renderer = oneOf('renderer', props.renderer ?? 'pods', renderers);
    const address = new ServiceAddress(this, 'address', {
      ...identity,
      name: this.#instance,
      ports: { clients: ports.clients },
      selector: renderer === 'strimzi' ? strimziSelector(this.#instance) : selectorLabels(identity),
    });
    this.host = address.host;
    this.bootstrapServers = `${this.host}:${this.port}`;
    this.#render(renderer, this.#cluster(props, declared), props);
  }

  /** A declared user: what a service is wired to. It gets the brokers' address, its password and the authority. */
  user(name: string): Connectable {
    if (!this.users.includes(name)) {
      const fix = `Declare it and its grants for "${this.#instance}".`;
      throw new InvalidPropError('user', name, this.users.join(', '), fix);
    }
    return { connect: (client) => this.#connect(name, client) };
  }

  #connect(name: string, client: PodNetwork): Connection {
    client.allowTo(this.network, [this.port]);
    const password = this.#plan.password(`${this.#instance}-user-${name}`, name, client.namespace);
    return {
      env: {
        KAFKA_BROKERS: this.bootstrapServers,
        KAFKA_CREDENTIALS_DIR: '/secrets/kafka',
        KAFKA_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [
        { path: '/secrets/kafka', secret: password },
        { path: '/secrets/ca', secret: this.#plan.authorityCertificate(client.namespace) },
      ],
    };
  }

  #cluster(
    { storage = '2Gi', storageClass, resources = BROKER, plan }: KafkaProps,
    declared: KafkaDeclaration,
  ): Cluster {
    bytesOf('storage', storage);
    return {
      name: this.#instance,
      namespace: placeOf(this).namespace,
      host: this.host,
      brokers: this.brokers,
      // A majority acknowledges a write: one of three may be away.
      replication: { copies: this.brokers, inSync: Math.ceil(this.brokers / 2) },
      storage,
      storageClass,
      resources,
      declared,
      network: this.network,
      plan,
    };
  }

  #render(renderer: KafkaRenderer, cluster: Cluster, props: KafkaProps): void {
    const { operatorNamespace = 'strimzi-system', reconciliation = '23 * * * *', image, bootstrapImage } = props;
    if (renderer === 'strimzi') renderStrimzi(this, cluster, { operatorNamespace });
    else renderPods(this, cluster, { image, bootstrapImage, reconciliation });
  }
}
