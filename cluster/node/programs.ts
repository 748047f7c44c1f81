import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { forwards, namespacePath, network, nodeName } from '../layout.ts';
import { toolPath } from '../toolchain.ts';
import type { CertificateName, Pki } from './certificates.ts';
import type { Program } from './processes.ts';
import { type NodePaths, settingPath } from './settings.ts';

/** Programs of the node by name. */
export const programNames = [
  'forward',
  'registry',
  'etcd',
  'containerd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
  'network-policy',
  'storage',
  'metrics-server',
] as const;

export type ProgramName = (typeof programNames)[number];

/** Port of the metrics server at the node's address; pods never dial it. */
export const metricsPort = 4443;

/** How each program is started. Settings have to be written before: their content is part of the digest. */
export function programs(paths: NodePaths, pki: Pki): Record<ProgramName, Program> {
  const entries = Object.entries(commands(paths, pki)).map(([name, each]) => [
    name,
    { ...each, digest: digest(each, paths.state) },
  ]);
  return Object.fromEntries(entries) as Record<ProgramName, Program>;
}

/** Covers the command and the content of each generated file that it names. */
function digest({ command, env }: Command, state: string): string {
  const hash = createHash('sha256').update(JSON.stringify([command, env ?? {}]));
  for (const argument of command.slice(1)) {
    const path = argument.replace(/^--[a-z-]+=/, '');
    if (path.startsWith(`${state}/`) && statSync(path, { throwIfNoEntry: false })?.isFile())
      hash.update(readFileSync(path));
  }
  return hash.digest('hex');
}

type Command = Omit<Program, 'digest'>;

function commands(paths: NodePaths, pki: Pki): Record<ProgramName, Command> {
  const { state } = paths;
  return {
    forward: { name: 'forward', outside: true, command: [toolPath('forward'), ...forwardArguments()] },
    registry: {
      name: 'registry',
      command: [toolPath('registry'), 'serve', settingPath(state, 'registry.json')],
      env: { OTEL_TRACES_EXPORTER: 'none' },
    },
    etcd: { name: 'etcd', command: ['/usr/bin/etcd', ...etcdArguments(state, pki)] },
    containerd: {
      name: 'containerd',
      command: ['/usr/bin/containerd', '--config', settingPath(state, 'containerd.toml'), '--log-level', 'warn'],
    },
    'kube-apiserver': {
      name: 'kube-apiserver',
      command: [toolPath('kube-apiserver'), ...apiServerArguments(state, pki)],
    },
    'kube-controller-manager': {
      name: 'kube-controller-manager',
      command: [toolPath('kube-controller-manager'), ...controllerManagerArguments(pki)],
    },
    'kube-scheduler': {
      name: 'kube-scheduler',
      command: [toolPath('kube-scheduler'), ...clientArguments(pki.kubeconfig('scheduler'))],
    },
    kubelet: {
      name: 'kubelet',
      command: [
        toolPath('kubelet'),
        `--config=${settingPath(state, 'kubelet.json')}`,
        `--kubeconfig=${pki.kubeconfig('kubelet')}`,
        `--root-dir=${join(state, 'kubelet')}`,
        `--hostname-override=${nodeName}`,
        `--node-ip=${network.nodeAddress}`,
      ],
    },
    'kube-proxy': {
      name: 'kube-proxy',
      command: [toolPath('kube-proxy'), `--config=${settingPath(state, 'kube-proxy.json')}`],
    },
    'network-policy': {
      name: 'network-policy',
      command: [
        toolPath('network-policy'),
        '--kubeconfig',
        pki.kubeconfig('network-policy'),
        '--pod-range',
        network.podRange,
        '--socket',
        paths.policySocket,
      ],
    },
    'metrics-server': {
      name: 'metrics-server',
      command: [toolPath('metrics-server'), ...metricsArguments(pki)],
    },
    storage: {
      name: 'storage',
      command: [
        toolPath('storage'),
        '--kubeconfig',
        pki.kubeconfig('storage'),
        '--node',
        nodeName,
        '--directory',
        join(state, 'volumes'),
      ],
    },
  };
}

function forwardArguments(): string[] {
  const rules = forwards.flatMap(({ port, target }) => ['--forward', `127.0.0.1:${port}=${target}`]);
  return ['--netns', namespacePath, ...rules];
}

function etcdArguments(state: string, pki: Pki): string[] {
  return [
    `--name=${nodeName}`,
    `--data-dir=${join(state, 'etcd')}`,
    '--listen-client-urls=https://127.0.0.1:2379',
    '--advertise-client-urls=https://127.0.0.1:2379',
    // A cluster of one has no peers; the port stays closed to all but this machine, behind certificates.
    '--listen-peer-urls=https://127.0.0.1:2380',
    '--initial-advertise-peer-urls=https://127.0.0.1:2380',
    `--initial-cluster=${nodeName}=https://127.0.0.1:2380`,
    ...tls('', 'etcd-server', pki),
    ...tls('peer-', 'etcd-server', pki),
    '--auto-compaction-retention=1h',
    '--logger=zap',
    '--log-level=warn',
  ];
}

function tls(prefix: string, name: CertificateName, pki: Pki): string[] {
  return [
    `--${prefix}cert-file=${pki.certificate(name)}`,
    `--${prefix}key-file=${pki.key(name)}`,
    `--${prefix}trusted-ca-file=${pki.certificate('etcd-ca')}`,
    `--${prefix}client-cert-auth`,
  ];
}

function apiServerArguments(state: string, pki: Pki): string[] {
  return [
    `--advertise-address=${network.nodeAddress}`,
    '--secure-port=6443',
    `--service-cluster-ip-range=${network.serviceRange}`,
    '--authorization-mode=Node,RBAC',
    `--authentication-config=${settingPath(state, 'authentication.json')}`,
    '--enable-admission-plugins=NodeRestriction',
    '--etcd-servers=https://127.0.0.1:2379',
    `--etcd-cafile=${pki.certificate('etcd-ca')}`,
    `--etcd-certfile=${pki.certificate('apiserver-etcd-client')}`,
    `--etcd-keyfile=${pki.key('apiserver-etcd-client')}`,
    `--encryption-provider-config=${pki.encryptionConfiguration}`,
    `--client-ca-file=${pki.certificate('ca')}`,
    `--tls-cert-file=${pki.certificate('apiserver')}`,
    `--tls-private-key-file=${pki.key('apiserver')}`,
    '--tls-min-version=VersionTLS13',
    `--kubelet-certificate-authority=${pki.certificate('ca')}`,
    `--kubelet-client-certificate=${pki.certificate('apiserver-kubelet-client')}`,
    `--kubelet-client-key=${pki.key('apiserver-kubelet-client')}`,
    // The default looks the node's name up in DNS first, where it is not.
    '--kubelet-preferred-address-types=InternalIP',
    `--service-account-issuer=https://kubernetes.default.svc.${network.clusterDomain}`,
    `--service-account-key-file=${pki.serviceAccountPublicKey}`,
    `--service-account-signing-key-file=${pki.serviceAccountKey}`,
    `--requestheader-client-ca-file=${pki.certificate('front-proxy-ca')}`,
    '--requestheader-allowed-names=front-proxy-client',
    '--requestheader-extra-headers-prefix=X-Remote-Extra-',
    '--requestheader-group-headers=X-Remote-Group',
    '--requestheader-username-headers=X-Remote-User',
    `--proxy-client-cert-file=${pki.certificate('front-proxy-client')}`,
    `--proxy-client-key-file=${pki.key('front-proxy-client')}`,
    '--profiling=false',
  ];
}

function clientArguments(kubeconfig: string): string[] {
  return [
    `--kubeconfig=${kubeconfig}`,
    `--authentication-kubeconfig=${kubeconfig}`,
    `--authorization-kubeconfig=${kubeconfig}`,
    '--bind-address=127.0.0.1',
    // One node has one of each: an election would only delay the start.
    '--leader-elect=false',
    '--profiling=false',
  ];
}

function metricsArguments(pki: Pki): string[] {
  const kubeconfig = pki.kubeconfig('metrics-server');
  return [
    `--kubeconfig=${kubeconfig}`,
    `--authentication-kubeconfig=${kubeconfig}`,
    `--authorization-kubeconfig=${kubeconfig}`,
    `--bind-address=${network.nodeAddress}`,
    `--secure-port=${metricsPort}`,
    `--tls-cert-file=${pki.certificate('metrics-server-tls')}`,
    `--tls-private-key-file=${pki.key('metrics-server-tls')}`,
    `--kubelet-certificate-authority=${pki.certificate('ca')}`,
    '--kubelet-preferred-address-types=InternalIP',
    '--metric-resolution=15s',
  ];
}

function controllerManagerArguments(pki: Pki): string[] {
  return [
    ...clientArguments(pki.kubeconfig('controller-manager')),
    '--use-service-account-credentials',
    // Each controller starts by fetching a token of its own: at the default 20 requests a second that takes 5 s.
    '--kube-api-qps=200',
    '--kube-api-burst=400',
    `--service-account-private-key-file=${pki.serviceAccountKey}`,
    `--root-ca-file=${pki.certificate('ca')}`,
    `--cluster-signing-cert-file=${pki.certificate('ca')}`,
    `--cluster-signing-key-file=${pki.key('ca')}`,
    '--allocate-node-cidrs',
    `--cluster-cidr=${network.podRange}`,
    '--node-cidr-mask-size=24',
  ];
}
