import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CoreV1Api, KubeConfig, RbacAuthorizationV1Api } from '@kubernetes/client-node';
import { toolPath } from '../../../cluster/toolchain.ts';
import { waitFor } from '../wait.ts';

/** A real Kubernetes API server on etcd for one test file: no nodes, no controllers, RBAC as in a cluster. */
export interface TestApiServer {
  /** Configuration of the administrator. */
  readonly admin: KubeConfig;
  /** Configuration of user `bootstrap`, who may do only what a test grants. */
  readonly bootstrap: KubeConfig;
  stop(): Promise<void>;
}

/** Path of the API server's program, built by the toolchain. */
export const apiServerProgram = (): string => toolPath('kube-apiserver');

/** Two ports that are free at the same time. */
async function freePorts(count: number): Promise<number[]> {
  const probes = Array.from({ length: count }, () => createServer());
  await Promise.all(probes.map((probe) => new Promise<void>((done) => probe.listen(0, '127.0.0.1', done))));
  const ports = probes.map((probe) => {
    const address = probe.address();
    if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
    return address.port;
  });
  await Promise.all(probes.map((probe) => new Promise((done) => probe.close(done))));
  return ports;
}

function kubeConfig(port: number, certificate: string, user: string, token: string): KubeConfig {
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [
      {
        name: 'test',
        server: `https://127.0.0.1:${port}`,
        caData: Buffer.from(certificate).toString('base64'),
        skipTLSVerify: false,
      },
    ],
    users: [{ name: user, token }],
    contexts: [{ name: user, cluster: 'test', user }],
    currentContext: user,
  });
  return config;
}

async function writeKeys(folder: string, tokens: Readonly<Record<string, string>>): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  await writeFile(join(folder, 'sa.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  await writeFile(join(folder, 'sa.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
  const groups: Readonly<Record<string, string>> = { admin: 'system:masters', bootstrap: 'testers' };
  const lines = Object.entries(tokens).map(([user, token]) => `${token},${user},${user},${groups[user]}`);
  await writeFile(join(folder, 'tokens.csv'), `${lines.join('\n')}\n`, { mode: 0o600 });
}

function startEtcd(folder: string, client: number, peer: number): ChildProcess {
  const url = (port: number) => `http://127.0.0.1:${port}`;
  const listen = ['--listen-client-urls', url(client), '--advertise-client-urls', url(client)];
  const args = ['--data-dir', join(folder, 'etcd'), '--unsafe-no-fsync', ...listen, '--listen-peer-urls', url(peer)];
  return spawn('etcd', args, { stdio: 'ignore' });
}

function startServer(folder: string, etcd: number, port: number): ChildProcess {
  const flags = {
    'etcd-servers': `http://127.0.0.1:${etcd}`,
    'secure-port': String(port),
    'bind-address': '127.0.0.1',
    'cert-dir': folder,
    'service-account-issuer': 'https://kubernetes.default.svc',
    'service-account-key-file': join(folder, 'sa.pub'),
    'service-account-signing-key-file': join(folder, 'sa.key'),
    'token-auth-file': join(folder, 'tokens.csv'),
    'service-cluster-ip-range': '10.96.0.0/16',
    'authorization-mode': 'RBAC',
    // As in a cluster: whether a pod may be privileged is the matter of admission.
    'allow-privileged': 'true',
  };
  const args = Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
  return spawn(apiServerProgram(), args, { stdio: 'ignore' });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once('exit', done));
  child.kill('SIGKILL');
  await ended;
}

/** Starts etcd and the API server, and waits until it is ready. */
export async function startApiServer(): Promise<TestApiServer> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-api-server-'));
  const tokens = { admin: randomBytes(16).toString('hex'), bootstrap: randomBytes(16).toString('hex') };
  await writeKeys(folder, tokens);
  const [client = 0, peer = 0, port = 0] = await freePorts(3);
  const etcd = startEtcd(folder, client, peer);
  const server = startServer(folder, client, port);
  const stop = async () => {
    await end(server);
    await end(etcd);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    return { ...(await whenReady(folder, port, tokens)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function whenReady(folder: string, port: number, tokens: { readonly admin: string; readonly bootstrap: string }) {
  const dependency = { name: 'kube-apiserver', address: `127.0.0.1:${port}`, fix: 'start it by hand and read its log' };
  const attempt = async () => {
    const certificate = await readFile(join(folder, 'apiserver.crt'), 'utf8');
    const admin = kubeConfig(port, certificate, 'admin', tokens.admin);
    await admin.makeApiClient(CoreV1Api).readNamespace({ name: 'default' });
    await admin.makeApiClient(RbacAuthorizationV1Api).readClusterRole({ name: 'cluster-admin' });
    return { admin, bootstrap: kubeConfig(port, certificate, 'bootstrap', tokens.bootstrap) };
  };
  return waitFor(dependency, attempt, { seconds: 60 });
}
