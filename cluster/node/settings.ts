import { mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { network, nodeName } from '../layout.ts';
import { toolPath } from '../toolchain.ts';
import { type Pki, writeSecret } from './certificates.ts';

/** Paths of what the node's programs share. */
export interface NodePaths {
  readonly state: string;
  readonly run: string;
  readonly containerdSocket: string;
  /** Where the network policy agent hears of a pod before it starts. */
  readonly policySocket: string;
}

export function nodePaths(state: string, run: string): NodePaths {
  return {
    state,
    run,
    containerdSocket: join(run, 'containerd.sock'),
    policySocket: join(run, 'network-policy.sock'),
  };
}

/** Path of a generated setting. */
export function settingPath(state: string, name: string): string {
  return join(state, 'settings', name);
}

/** Writes the settings of every program; equal content stays untouched. */
export function writeSettings(paths: NodePaths, pki: Pki, images: { pause: string }, registryStorage: string): void {
  const write = (name: string, content: string | object): void =>
    writeSecret(
      settingPath(paths.state, name),
      typeof content === 'string' ? content : `${JSON.stringify(content, undefined, 2)}\n`,
    );
  write('containerd.toml', containerdSettings(paths, images.pause));
  write('cni/10-somagent.conflist', networkSettings(paths));
  write('kubelet.json', kubeletSettings(paths, pki));
  write('kube-proxy.json', proxySettings(pki));
  write('authentication.json', authenticationSettings);
  linkNetworkPlugins(paths);
  write('registry.json', registrySettings(registryStorage));
  // Nothing outside the cluster can be reached, so pods inherit no resolver of the machine.
  write('resolv.conf', '# Names are resolved by the cluster DNS only.\n');
}

/** Debian's CNI plugins and our own side by side: containerd looks for plugins in one folder. */
function linkNetworkPlugins({ state }: NodePaths): void {
  const folder = networkPlugins(state);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const name of ['loopback', 'ptp', 'host-local', 'portmap'])
    symlinkSync(`/usr/lib/cni/${name}`, join(folder, name));
  symlinkSync(toolPath('network-policy'), join(folder, 'network-policy'));
}

const networkPlugins = (state: string): string => join(state, 'cni-plugins');

/** True when this process may lower a score of the OOM killer; without it runc can't start a container that asks for it. */
function maySetOomScore(): boolean {
  const capabilities = readFileSync('/proc/self/status', 'utf8').match(/^CapEff:\s*([0-9a-f]+)/m)?.[1] ?? '0';
  const sysResource = 24n;
  return ((BigInt(`0x${capabilities}`) >> sysResource) & 1n) === 1n;
}

function containerdSettings({ state, run, containerdSocket }: NodePaths, pauseImage: string): string {
  return `version = 2
root = "${state}/containerd"
state = "${run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "${containerdSocket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${pauseImage}"
stream_server_address = "127.0.0.1"
max_concurrent_downloads = 4
restrict_oom_score_adj = ${!maySetOomScore()}
disable_apparmor = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
# The registry keeps the packed layers.
discard_unpacked_layers = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "${run}/runc"
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "${networkPlugins(state)}"
conf_dir = "${settingPath(state, 'cni')}"
`;
}

/** Every pod is routed by the node: a bridge would switch pods past netfilter, where nothing enforces a policy. */
function networkSettings({ run, policySocket }: NodePaths): object {
  const ipam = {
    type: 'host-local',
    ranges: [[{ subnet: network.podRange }]],
    routes: [{ dst: '0.0.0.0/0' }],
    dataDir: join(run, 'cni'),
  };
  return {
    cniVersion: '1.0.0',
    name: 'somagent',
    plugins: [
      { type: 'ptp', mtu: 1500, ipMasq: false, ipam },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      // Holds a pod back until the rules that concern it are in the kernel.
      { type: 'network-policy', socket: policySocket },
    ],
  };
}

function kubeletSettings({ state, containerdSocket }: NodePaths, pki: Pki): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    address: network.nodeAddress,
    healthzBindAddress: '127.0.0.1',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: pki.certificate('ca') },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: pki.certificate('kubelet-server'),
    tlsPrivateKeyFile: pki.key('kubelet-server'),
    containerRuntimeEndpoint: `unix://${containerdSocket}`,
    podLogsDir: join(state, 'pod-logs'),
    clusterDNS: [network.dnsService],
    clusterDomain: network.clusterDomain,
    resolvConf: settingPath(state, 'resolv.conf'),
    cgroupDriver: 'cgroupfs',
    failCgroupV1: false,
    failSwapOn: false,
    systemReserved: { cpu: '100m', memory: '1Gi' },
    podPidsLimit: 4096,
    serializeImagePulls: false,
    registryPullQPS: 0,
    // The defaults start to delete images at 85 % of the disk and pods at 90 %, whoever filled it.
    imageGCHighThresholdPercent: 97,
    imageGCLowThresholdPercent: 95,
    evictionHard: {
      'memory.available': '200Mi',
      'nodefs.available': '2%',
      'imagefs.available': '2%',
      'nodefs.inodesFree': '2%',
    },
    // A watch (the default) is refused until the authorizer has seen the pod, and then backs off for over a second.
    configMapAndSecretChangeDetectionStrategy: 'Get',
    volumeStatsAggPeriod: '5m',
  };
}

function proxySettings(pki: Pki): object {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    bindAddress: network.nodeAddress,
    healthzBindAddress: '127.0.0.1:10256',
    metricsBindAddress: '127.0.0.1:10249',
    clientConnection: { kubeconfig: pki.kubeconfig('kube-proxy') },
    clusterCIDR: network.podRange,
    hostnameOverride: nodeName,
    mode: 'iptables',
    nodePortAddresses: [`${network.nodeAddress}/32`],
    iptables: { minSyncPeriod: '100ms' },
    // These limits belong to the machine and can't be set from inside a network namespace.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  };
}

/** Anonymous requests reach the health checks and nothing else. */
const authenticationSettings = {
  apiVersion: 'apiserver.config.k8s.io/v1',
  kind: 'AuthenticationConfiguration',
  anonymous: { enabled: true, conditions: [{ path: '/livez' }, { path: '/readyz' }, { path: '/healthz' }] },
};

function registrySettings(storage: string): object {
  return {
    version: 0.1,
    log: { level: 'warn', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: storage }, delete: { enabled: true } },
    http: { addr: '127.0.0.1:5000' },
  };
}
