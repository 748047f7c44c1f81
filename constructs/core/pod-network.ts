import { Lazy } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { type Identity, objectLabels } from './labels.ts';
import { placeOf } from './region-chart.ts';
import { dnsLabel, InvalidPropError, port } from './validate.ts';

/** Label of pods by which network policies know them. */
const NETWORK_LABEL = 'somagent.dev/network';

/** A port, or an inclusive range of ports, of TCP. */
export type PortRange = number | { readonly from: number; readonly to: number };

/** Where the Kubernetes API server can be reached from pods. */
export interface ApiServerAddress {
  /**
   * Addresses, as CIDRs. They differ per cluster and can't be selected by labels: the server is not a pod. Some network
   * plugins look at the address of its Service, some at the one behind it: name both.
   * @default ['0.0.0.0/0']
   */
  readonly cidrs?: readonly string[];
  /**
   * Ports: of its Service and behind it.
   * @default [443, 6443]
   */
  readonly ports?: readonly number[];
}

/** A server that pods can be admitted to. */
export interface Endpoint {
  /** DNS name within the cluster, such as `postgres.local-data.svc`. */
  readonly host: string;
  readonly port: number;
  /** The pods behind it. */
  readonly network: PodNetwork;
}

/** Options of {@link PodNetwork}. */
export interface PodNetworkProps extends Identity {
  /** Name of the policy, unique in its namespace. */
  readonly name: string;
}

/**
 * Who a group of pods may talk to, and who may talk to it: nobody but declared peers.
 * `a.allowTo(b, [port])` opens both sides, the way out of a and the way into b.
 * Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
 */
export class PodNetwork extends Construct {
  /** The label that puts a pod under this policy. */
  readonly podLabels: Readonly<Record<string, string>>;
  readonly namespace: string;
  readonly #props: PodNetworkProps;
  #serviceAccount: string | undefined;
  readonly #ingress: k8s.NetworkPolicyIngressRule[] = [];
  readonly #egress: k8s.NetworkPolicyEgressRule[] = [];

  constructor(scope: Construct, id: string, props: PodNetworkProps) {
    super(scope, id);
    const name = dnsLabel('network policy name', props.name);
    this.namespace = placeOf(this).namespace;
    this.#props = props;
    this.podLabels = { [NETWORK_LABEL]: name };
    new k8s.KubeNetworkPolicy(this, 'policy', {
      metadata: { name, labels: objectLabels(this, props) },
      spec: {
        podSelector: { matchLabels: this.podLabels },
        policyTypes: ['Ingress', 'Egress'],
        // Peers may be declared until the chart is synthesized.
        ingress: Lazy.any({ produce: () => [...this.#ingress] }),
        egress: Lazy.any({ produce: () => [...this.#egress] }),
      },
    });
  }

  /**
   * The ServiceAccount by which these pods show who they are: one with their policy, so that who may talk to whom and
   * who is whom are the same thing. It has no right on the Kubernetes API.
   */
  serviceAccount(): string {
    this.#serviceAccount ??= this.#createServiceAccount();
    return this.#serviceAccount;
  }

  /** `sub` of the tokens of these pods. */
  workloadSubject(): string {
    return `system:serviceaccount:${this.namespace}:${this.serviceAccount()}`;
  }

  /** The pods have a ServiceAccount with rights already: their tokens are of that one. */
  useServiceAccount(name: string): void {
    if (this.#serviceAccount !== undefined && this.#serviceAccount !== name) {
      throw new InvalidPropError(
        'serviceIdentity',
        name,
        `${this.#serviceAccount}, which other pods of network ${this.#props.name} have`,
        'Give the pods a network of their own.',
      );
    }
    this.#serviceAccount = name;
  }

  #createServiceAccount(): string {
    new k8s.KubeServiceAccount(this, 'account', {
      metadata: { name: this.#props.name, labels: objectLabels(this, this.#props) },
      automountServiceAccountToken: false,
    });
    return this.#props.name;
  }

  /** Opens the way from these pods to other ones, on both sides. */
  allowTo(target: PodNetwork, ports: readonly PortRange[]): void {
    addOnce(this.#egress, { to: [target.#peer()], ports: ports.map(policyPort) });
    addOnce(target.#ingress, { from: [this.#peer()], ports: ports.map(policyPort) });
  }

  /** Opens every port between the pods of this group: for products whose ports are chosen at run time. */
  allowWithin(): void {
    addOnce(this.#egress, { to: [this.#peer()] });
    addOnce(this.#ingress, { from: [this.#peer()] });
  }

  /** Opens ports to every pod of a namespace: for operators, whose pods are not ours. */
  allowFromNamespace(namespace: string, ports: readonly PortRange[]): void {
    const namespaceSelector = { matchLabels: { 'kubernetes.io/metadata.name': dnsLabel('namespace', namespace) } };
    addOnce(this.#ingress, { from: [{ namespaceSelector }], ports: ports.map(policyPort) });
  }

  /** Opens a port to every address, inside and outside of the cluster: for published ports only. */
  allowFromAnywhere(target: number): void {
    addOnce(this.#ingress, { ports: [policyPort(target)] });
  }

  /** Opens the way to the Kubernetes API server. */
  allowToApiServer(address: ApiServerAddress = {}): void {
    const { cidrs = ['0.0.0.0/0'], ports = [443, 6443] } = address;
    addOnce(this.#egress, { to: cidrs.map((cidr) => ({ ipBlock: { cidr } })), ports: ports.map(policyPort) });
  }

  #peer(): k8s.NetworkPolicyPeer {
    return {
      namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': this.namespace } },
      podSelector: { matchLabels: this.podLabels },
    };
  }
}

function policyPort(range: PortRange): k8s.NetworkPolicyPort {
  if (typeof range === 'number') {
    return { protocol: 'TCP', port: k8s.IntOrString.fromNumber(port('port', range)) };
  }
  return {
    protocol: 'TCP',
    port: k8s.IntOrString.fromNumber(port('port.from', range.from)),
    endPort: port('port.to', range.to),
  };
}

/** Declaring the same peer twice gives one rule. */
function addOnce<Rule>(rules: Rule[], rule: Rule): void {
  const text = JSON.stringify(rule);
  if (!rules.some((known) => JSON.stringify(known) === text)) rules.push(rule);
}
