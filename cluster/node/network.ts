import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { run, succeeds } from '../command.ts';
import { namespaceName, namespacePath, network } from '../layout.ts';

/** Arguments that run a program inside the namespace. `ip netns exec` would hide the cgroup mounts from the kubelet. */
export function insideArguments(command: readonly string[]): string[] {
  return [`--net=${namespacePath}`, '--', ...command];
}

/** Runs a command inside the namespace. */
function runInside(command: readonly string[], input?: string): Promise<string> {
  return run('nsenter', insideArguments(command), input === undefined ? {} : { input });
}

/** True when the namespace is there: after a reboot its file may be left as an ordinary file that leads nowhere. */
export function namespaceExists(): boolean {
  if (!existsSync(namespacePath)) return false;
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${namespacePath} `);
}

/**
 * Makes the namespace, its bridge and its routes, whatever is there already. The default route leads into the bridge,
 * so that a stray packet ends there and never leaves the machine.
 */
export async function ensureNetwork(): Promise<void> {
  if (!namespaceExists()) {
    rmSync(namespacePath, { force: true });
    mkdirSync('/run/netns', { recursive: true });
    await run('ip', ['netns', 'add', namespaceName]);
  }
  const bridge = network.bridge;
  if (!(await succeeds('ip', ['-n', namespaceName, 'link', 'show', bridge]))) {
    await run('ip', ['-n', namespaceName, 'link', 'add', bridge, 'type', 'bridge']);
  }
  await run('ip', ['-n', namespaceName, '-batch', '-'], { input: networkCommands() });
  await runInside(['sysctl', '-q', ...kernelSettings]);
}

function networkCommands(): string {
  const { bridge, nodeAddress, nodePrefix } = network;
  return [
    'link set lo up',
    `link set ${bridge} up`,
    `address replace ${nodeAddress}/${nodePrefix} dev ${bridge}`,
    `route replace default dev ${bridge}`,
    '',
  ].join('\n');
}

const kernelSettings = [
  'net.ipv4.ip_forward=1',
  // Replies of pods come back through a veth of their own: strict checks would drop what kube-proxy redirected.
  'net.ipv4.conf.all.rp_filter=0',
  'net.ipv4.conf.default.rp_filter=0',
];

/** Deletes the namespace and with it every interface, route and firewall rule of the cluster. */
export async function deleteNetwork(): Promise<void> {
  if (namespaceExists()) await run('ip', ['netns', 'delete', namespaceName]);
  rmSync(namespacePath, { force: true });
}
