import { network } from '../layout.ts';
import type { Api, KubernetesObject } from './api.ts';
import { apiServerUser } from './certificates.ts';
import { metricsPort } from './programs.ts';

/** An object and the collection that it is applied to. */
interface Addon {
  readonly collection: string;
  readonly object: KubernetesObject;
}

const labels = (name: string): Record<string, string> => ({
  'app.kubernetes.io/name': name,
  'app.kubernetes.io/part-of': 'somagent-cluster',
});

/** Applies what every cluster has: default StorageClass, DNS, and the rights of the node's own programs. */
export async function applyAddons(api: Api, images: { coredns: string }, authority: Buffer): Promise<void> {
  await Promise.all(addons(images, authority).map(({ collection, object }) => api.apply(collection, object)));
}

/** All add-ons. Pure: equal images give equal objects. */
export function addons(images: { coredns: string }, authority: Buffer): Addon[] {
  return [
    namespace(),
    storageClass(),
    ...rights('kubelet-api', apiServerUser, [], 'system:kubelet-api-admin'),
    ...rights('network-policy', 'somagent:network-policy', [
      { apiGroups: [''], resources: ['pods', 'namespaces', 'nodes'], verbs: ['get', 'list', 'watch'] },
      { apiGroups: ['networking.k8s.io'], resources: ['networkpolicies'], verbs: ['get', 'list', 'watch'] },
    ]),
    ...rights('storage', 'somagent:storage', storageRules),
    ...dns(images.coredns),
    ...metrics(authority),
  ];
}

function namespace(): Addon {
  const metadata = { name: 'kube-system', labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } };
  return { collection: '/api/v1/namespaces', object: { apiVersion: 'v1', kind: 'Namespace', metadata } };
}

function storageClass(): Addon {
  return {
    collection: '/apis/storage.k8s.io/v1/storageclasses',
    object: {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: {
        name: 'local',
        labels: labels('storage'),
        annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' },
      },
      provisioner: 'somagent.dev/storage',
      reclaimPolicy: 'Delete',
      volumeBindingMode: 'WaitForFirstConsumer',
    },
  };
}

const storageRules = [
  {
    apiGroups: [''],
    resources: ['persistentvolumes'],
    verbs: ['get', 'list', 'watch', 'create', 'patch', 'update', 'delete'],
  },
  { apiGroups: [''], resources: ['persistentvolumeclaims'], verbs: ['get', 'list', 'watch', 'update', 'patch'] },
  { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: ['storage.k8s.io'], resources: ['storageclasses'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: ['', 'events.k8s.io'], resources: ['events'], verbs: ['create', 'patch', 'update'] },
];

/** Grants a user a ClusterRole: a new one with the rules, or one that Kubernetes has. */
function rights(name: string, user: string, rules: readonly object[], existing?: string): Addon[] {
  const authorization = 'rbac.authorization.k8s.io';
  const base = `/apis/${authorization}/v1`;
  const role = existing ?? `somagent:${name}`;
  const metadata = { name: `somagent:${name}`, labels: labels(name) };
  const binding = {
    collection: `${base}/clusterrolebindings`,
    object: {
      apiVersion: `${authorization}/v1`,
      kind: 'ClusterRoleBinding',
      metadata,
      roleRef: { apiGroup: authorization, kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: authorization, kind: 'User', name: user }],
    },
  };
  if (existing) return [binding];
  const object = { apiVersion: `${authorization}/v1`, kind: 'ClusterRole', metadata, rules };
  return [{ collection: `${base}/clusterroles`, object }, binding];
}

/** The metrics API, served by a process of the node: a Service without selector leads to it. */
function metrics(authority: Buffer): Addon[] {
  const name = 'metrics-server';
  const user = 'somagent:metrics-server';
  const core = '/api/v1/namespaces/kube-system';
  const authorization = 'rbac.authorization.k8s.io';
  const metadata = { name, namespace: 'kube-system', labels: labels(name) };
  const reader = {
    apiVersion: `${authorization}/v1`,
    kind: 'RoleBinding',
    metadata,
    roleRef: { apiGroup: authorization, kind: 'Role', name: 'extension-apiserver-authentication-reader' },
    subjects: [{ apiGroup: authorization, kind: 'User', name: user }],
  };
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: { ports: [{ name: 'https', port: 443, targetPort: metricsPort, protocol: 'TCP' }] },
  };
  const endpoints = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { ...metadata, labels: { ...labels(name), 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ name: 'https', port: metricsPort, protocol: 'TCP' }],
    endpoints: [{ addresses: [network.nodeAddress], conditions: { ready: true } }],
  };
  const registration = {
    apiVersion: 'apiregistration.k8s.io/v1',
    kind: 'APIService',
    metadata: { name: 'v1beta1.metrics.k8s.io', labels: labels(name) },
    spec: {
      group: 'metrics.k8s.io',
      version: 'v1beta1',
      groupPriorityMinimum: 100,
      versionPriority: 100,
      caBundle: authority.toString('base64'),
      service: { name, namespace: 'kube-system' },
    },
  };
  return [
    ...rights(name, user, [
      { apiGroups: [''], resources: ['nodes/metrics'], verbs: ['get'] },
      { apiGroups: [''], resources: ['pods', 'nodes'], verbs: ['get', 'list', 'watch'] },
    ]),
    ...rights(`${name}-delegator`, user, [], 'system:auth-delegator'),
    { collection: `/apis/${authorization}/v1/namespaces/kube-system/rolebindings`, object: reader },
    { collection: `${core}/services`, object: service },
    { collection: '/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices', object: endpoints },
    { collection: '/apis/apiregistration.k8s.io/v1/apiservices', object: registration },
  ];
}

const dnsPort = 1053;

const corefile = `.:${dnsPort} {
  errors
  health :8080
  ready :8181
  kubernetes ${network.clusterDomain} in-addr.arpa ip6.arpa {
    pods insecure
    ttl 5
  }
  prometheus :9153
  cache 5
  reload
  loadbalance
}
`;

function dns(image: string): Addon[] {
  const metadata = { name: 'coredns', namespace: 'kube-system', labels: labels('coredns') };
  const selector = { 'k8s-app': 'kube-dns' };
  const core = '/api/v1/namespaces/kube-system';
  return [
    { collection: `${core}/serviceaccounts`, object: { apiVersion: 'v1', kind: 'ServiceAccount', metadata } },
    ...dnsRights(),
    {
      collection: `${core}/configmaps`,
      object: { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { Corefile: corefile } },
    },
    {
      collection: `${core}/services`,
      object: {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { ...metadata, name: 'kube-dns', labels: { ...labels('coredns'), ...selector } },
        spec: {
          clusterIP: network.dnsService,
          selector,
          ports: [
            { name: 'dns', port: 53, targetPort: dnsPort, protocol: 'UDP' },
            { name: 'dns-tcp', port: 53, targetPort: dnsPort, protocol: 'TCP' },
          ],
        },
      },
    },
    {
      collection: '/apis/apps/v1/namespaces/kube-system/deployments',
      object: {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata,
        spec: {
          replicas: 1,
          selector: { matchLabels: selector },
          template: { metadata: { labels: { ...selector, ...labels('coredns') } }, spec: dnsPod(image) },
        },
      },
    },
  ];
}

/** What CoreDNS answers from. */
function dnsRights(): Addon[] {
  const authorization = 'rbac.authorization.k8s.io';
  const readOnly = ['list', 'watch'];
  const clusterWide = { name: 'system:coredns', labels: labels('coredns') };
  return [
    {
      collection: `/apis/${authorization}/v1/clusterroles`,
      object: {
        apiVersion: `${authorization}/v1`,
        kind: 'ClusterRole',
        metadata: clusterWide,
        rules: [
          { apiGroups: [''], resources: ['services', 'pods', 'namespaces'], verbs: readOnly },
          { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: readOnly },
        ],
      },
    },
    {
      collection: `/apis/${authorization}/v1/clusterrolebindings`,
      object: {
        apiVersion: `${authorization}/v1`,
        kind: 'ClusterRoleBinding',
        metadata: clusterWide,
        roleRef: { apiGroup: authorization, kind: 'ClusterRole', name: clusterWide.name },
        subjects: [{ kind: 'ServiceAccount', name: 'coredns', namespace: 'kube-system' }],
      },
    },
  ];
}

function dnsPod(image: string): object {
  return {
    serviceAccountName: 'coredns',
    dnsPolicy: 'Default',
    priorityClassName: 'system-cluster-critical',
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: 'coredns',
        image,
        args: ['-conf', '/etc/coredns/Corefile'],
        ports: [
          { name: 'dns', containerPort: dnsPort, protocol: 'UDP' },
          { name: 'dns-tcp', containerPort: dnsPort, protocol: 'TCP' },
          { name: 'metrics', containerPort: 9153, protocol: 'TCP' },
        ],
        resources: { requests: { cpu: '20m', memory: '48Mi' }, limits: { memory: '160Mi' } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        readinessProbe: { httpGet: { path: '/ready', port: 8181 }, periodSeconds: 1 },
        livenessProbe: { httpGet: { path: '/health', port: 8080 }, periodSeconds: 10, failureThreshold: 5 },
        volumeMounts: [{ name: 'configuration', mountPath: '/etc/coredns', readOnly: true }],
      },
    ],
    volumes: [{ name: 'configuration', configMap: { name: 'coredns' } }],
  };
}
