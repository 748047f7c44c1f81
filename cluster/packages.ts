import { accessSync, constants, existsSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { run } from './command.ts';
import type { Progress } from './progress.ts';

/** A Debian package and how one sees that its program is there, whoever installed it. */
export interface DebianPackage {
  readonly name: string;
  /** A command on the path, or an absolute path. */
  readonly provides: string;
  readonly purpose: string;
}

/** How Debian calls this architecture in the paths of libraries. */
const gnuTriplet = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';

/** Everything that the machine needs from its distribution. */
const debianPackages: readonly DebianPackage[] = [
  { name: 'etcd-server', provides: 'etcd', purpose: 'store of the API server' },
  { name: 'containerd', provides: 'containerd', purpose: 'runs containers' },
  { name: 'runc', provides: 'runc', purpose: 'runs containers' },
  { name: 'containernetworking-plugins', provides: '/usr/lib/cni/ptp', purpose: 'network of pods' },
  { name: 'iproute2', provides: 'ip', purpose: 'network namespace' },
  { name: 'util-linux', provides: 'nsenter', purpose: 'network namespace' },
  { name: 'procps', provides: 'sysctl', purpose: 'kernel settings of the namespace' },
  { name: 'iptables', provides: 'iptables', purpose: 'Services' },
  { name: 'conntrack', provides: 'conntrack', purpose: 'Services over UDP' },
  { name: 'nftables', provides: 'nft', purpose: 'network policies' },
  { name: 'mount', provides: 'mount', purpose: 'volumes' },
  { name: 'buildah', provides: 'buildah', purpose: 'builds images' },
  { name: 'mmdebstrap', provides: 'mmdebstrap', purpose: 'base image' },
  { name: 'maven', provides: 'mvn', purpose: 'fetches Kafka, Keycloak, Apicurio' },
  { name: 'openjdk-17-jdk-headless', provides: 'javac', purpose: 'builds Kafka and Keycloak' },
  { name: 'python3.11', provides: 'python3.11', purpose: 'model and Ray image' },
  // Debian's own Python comes without it; a Python from elsewhere has it and does not mind.
  { name: 'python3.11-venv', provides: '/usr/lib/python3.11/ensurepip', purpose: 'trains and tests the model' },
  { name: 'libgomp1', provides: `/usr/lib/${gnuTriplet}/libgomp.so.1`, purpose: 'trains and tests the model' },
  { name: 'python3-pip', provides: 'pip3', purpose: 'model and Ray image' },
  { name: 'ca-certificates', provides: '/etc/ssl/certs/ca-certificates.crt', purpose: 'fetches Go modules' },
  { name: 'unzip', provides: 'unzip', purpose: 'unpacks Keycloak' },
  { name: 'postgresql-15', provides: '/usr/lib/postgresql/15/bin/initdb', purpose: 'the real server of unit tests' },
];

/** True when a command is on the path, or the file is there. */
export function isProvided(program: string, path = process.env.PATH ?? ''): boolean {
  if (isAbsolute(program)) return existsSync(program);
  // Debian keeps system programs where the path of an ordinary user does not lead.
  return [...path.split(delimiter), '/usr/sbin', '/sbin'].some((folder) => isExecutable(join(folder, program)));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Packages whose program is not there. */
export function missingPackages(provided: (program: string) => boolean = isProvided): DebianPackage[] {
  return debianPackages.filter(({ provides }) => !provided(provides));
}

const policyFile = '/usr/sbin/policy-rc.d';

/** Installs what is missing; does nothing when all is there. Starts none of the services that packages bring. */
export async function installPackages(say: Progress): Promise<void> {
  const missing = missingPackages().map(({ name }) => name);
  if (missing.length === 0) return say(`packages: all ${debianPackages.length} are installed`);
  if (!isProvided('apt-get')) {
    throw new Error(`packages: this system has no apt-get; install by its own means: ${missing.join(', ')}`);
  }
  say(`packages: installing ${missing.join(', ')}`);
  // Debian asks this file before it starts a service: etcd and containerd of the machine are not what we run.
  const ours = !existsSync(policyFile);
  if (ours) writeFileSync(policyFile, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    await run('apt-get', ['update', '-q'], { env, deadline: 10 * 60_000 });
    await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', ...missing], {
      env,
      deadline: 30 * 60_000,
    });
  } finally {
    if (ours) rmSync(policyFile, { force: true });
  }
  say(`packages: ${missing.length} installed`);
}
