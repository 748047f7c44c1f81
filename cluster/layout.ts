import { homedir } from 'node:os';
import { join } from 'node:path';

/** Name of the network namespace that everything of the cluster runs in. */
export const namespaceName = 'soma';
/** Its path: what `nsenter --net=` takes. */
export const namespacePath = `/run/netns/${namespaceName}`;

/** Addresses inside the namespace. None of them may ever be dialled from outside it: there they belong to others. */
export const network = {
  /** The kubelet refuses a loopback address, so the node has one on a bridge of its own. */
  bridge: 'node0',
  nodeAddress: '10.250.0.1',
  nodePrefix: 24,
  podRange: '10.244.0.0/24',
  serviceRange: '10.96.0.0/16',
  /** First address of the service range: the API server's own Service. */
  apiService: '10.96.0.1',
  dnsService: '10.96.0.10',
  clusterDomain: 'cluster.local',
} as const;

/** Ports at 127.0.0.1 of the machine → where they lead inside the namespace. */
export const forwards = [
  { port: 6443, target: '127.0.0.1:6443', purpose: 'API server' },
  { port: 8443, target: `${network.nodeAddress}:30443`, purpose: 'gateway' },
  { port: 8444, target: `${network.nodeAddress}:30444`, purpose: 'Keycloak' },
  { port: 8445, target: `${network.nodeAddress}:30445`, purpose: 'accounts' },
  { port: 8446, target: `${network.nodeAddress}:30446`, purpose: 'audit log' },
  { port: 8447, target: `${network.nodeAddress}:30447`, purpose: 'memory' },
  { port: 8448, target: `${network.nodeAddress}:30448`, purpose: 'analytics' },
  { port: 8449, target: `${network.nodeAddress}:30449`, purpose: 'training' },
  { port: 5000, target: '127.0.0.1:5000', purpose: 'image registry' },
] as const;

/** The registry, as the machine and the kubelet both name it. */
export const registryAddress = 'localhost:5000';
/** The API server, as every kubeconfig names it. */
export const apiAddress = 'https://localhost:6443';
export const nodeName = 'soma';

/** Where things are kept. */
export interface Layout {
  /** All that `down` deletes. */
  readonly state: string;
  /** Sockets: a path in `state` could be longer than the 107 bytes a socket may have. */
  readonly run: string;
  /** Survives `down`: built programs, images of the registry. */
  readonly cache: string;
  /** Copy of the administrator's kubeconfig for people and tools. */
  readonly kubeconfig: string;
}

/** Default places; `SOMAGENT_STATE_DIR` moves the state. */
export function layout(env: NodeJS.ProcessEnv = process.env): Layout {
  return {
    state: env.SOMAGENT_STATE_DIR || '/var/lib/somagent',
    run: '/run/somagent',
    cache: join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'somagent'),
    kubeconfig: join(import.meta.dirname, '../.soma/kubeconfig'),
  };
}
