import { Chart } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import type { Construct } from 'constructs';
import { canonicalBytes, canonicalCores } from '../core/quantity.ts';
import { type Plane, planeNamespace, planes, platformLabels } from '../core/region-chart.ts';
import { dnsLabel, integerBetween } from '../core/validate.ts';

/** The most that all pods of a namespace together may ask for. */
export interface PlaneQuota {
  /** Processor requests, such as `2` or `500m`. */
  readonly cpu: string;
  /** Memory limits, such as `4Gi`. */
  readonly memory: string;
  /** Number of pods. */
  readonly pods: number;
}

/** Options of {@link RegionNamespaces}. */
export interface RegionNamespacesProps {
  /** Name of the region, a DNS label. */
  readonly region: string;
  /** Quotas by plane. @default none */
  readonly quotas?: Readonly<Partial<Record<Plane, PlaneQuota>>>;
}

/**
 * The namespaces of a region, one per plane: the `restricted` pod security standard is enforced, and nothing may talk
 * to anything until a policy says so, name resolution excepted.
 */
export class RegionNamespaces extends Chart {
  /** Name of the namespace of each plane. */
  readonly names: Readonly<Record<Plane, string>>;

  constructor(scope: Construct, id: string, props: RegionNamespacesProps) {
    const region = dnsLabel('region', props.region);
    super(scope, id, { labels: platformLabels(region) });
    const name = (plane: Plane) => planeNamespace(region, plane);
    this.names = {
      system: name('system'),
      data: name('data'),
      identity: name('identity'),
      runtime: name('runtime'),
      services: name('services'),
    };
    for (const plane of planes) this.#plane(plane, region, props.quotas?.[plane]);
  }

  #plane(plane: Plane, region: string, quota: PlaneQuota | undefined): void {
    const labels = {
      'app.kubernetes.io/name': 'namespace',
      'app.kubernetes.io/instance': region,
      'app.kubernetes.io/component': plane,
      ...platformLabels(region),
    };
    const namespace = this.names[plane];
    const object = new k8s.KubeNamespace(this, plane, {
      metadata: { name: namespace, labels: { ...labels, ...podSecurity() } },
    });
    const parts = [
      denyAll(this, `${plane}-default-deny`, namespace, labels),
      allowDns(this, `${plane}-dns`, namespace, labels),
      ...(quota === undefined ? [] : [resourceQuota(this, `${plane}-quota`, namespace, labels, quota)]),
    ];
    for (const part of parts) part.addDependency(object);
  }
}

/** Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/ */
function podSecurity(): Record<string, string> {
  return Object.fromEntries(
    ['enforce', 'audit', 'warn'].map((mode) => [`pod-security.kubernetes.io/${mode}`, 'restricted']),
  );
}

function denyAll(scope: Construct, id: string, namespace: string, labels: Record<string, string>) {
  return new k8s.KubeNetworkPolicy(scope, id, {
    metadata: { name: 'default-deny', namespace, labels },
    spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'] },
  });
}

function allowDns(scope: Construct, id: string, namespace: string, labels: Record<string, string>) {
  return new k8s.KubeNetworkPolicy(scope, id, {
    metadata: { name: 'allow-dns', namespace, labels },
    spec: {
      podSelector: {},
      policyTypes: ['Egress'],
      egress: [
        {
          to: [
            {
              namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
              podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
            },
          ],
          // No ports: a policy sees the port of the pod, and a DNS server without privileges listens above 1023.
        },
      ],
    },
  });
}

function resourceQuota(
  scope: Construct,
  id: string,
  namespace: string,
  labels: Record<string, string>,
  quota: PlaneQuota,
) {
  const pods = integerBetween('quota.pods', quota.pods, 1, 10_000);
  return new k8s.KubeResourceQuota(scope, id, {
    metadata: { name: 'plane', namespace, labels },
    spec: {
      hard: {
        'requests.cpu': k8s.Quantity.fromString(canonicalCores('quota.cpu', quota.cpu)),
        'limits.memory': k8s.Quantity.fromString(canonicalBytes('quota.memory', quota.memory)),
        pods: k8s.Quantity.fromString(String(pods)),
      },
    },
  });
}
