/** NetworkPolicy is enforced for real: a forbidden connection fails, an allowed one works, and removing the policy opens it. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { imageReference } from '@somagent/images';
import { get, kubectl, kubectlWith } from './support/kubectl.ts';
import { eventually } from './support/wait.ts';

const namespace = `policy-${randomBytes(3).toString('hex')}`;
const image = imageReference('node', { registry: 'localhost:5000' });
const server = `require('http').createServer((q, s) => s.end('open')).listen(8080)`;

const pod = (name: string, labels: Record<string, string>, script: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace, labels },
  spec: {
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 0,
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: 'main',
        image,
        command: ['node', '-e', script],
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
      },
    ],
  },
});

const allowClient = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'server', namespace },
  spec: {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { role: 'friend' } } }], ports: [{ port: 8080 }] }],
  },
};

/** One TCP connection from a pod: `open`, or the error code that the client saw. */
async function connect(from: string, address: string): Promise<string> {
  const script = `fetch('http://${address}:8080', { signal: AbortSignal.timeout(1500) })
    .then((r) => r.text()).catch((e) => e.cause?.code ?? e.name).then(console.log)`;
  return kubectl('exec', '-n', namespace, from, '--', 'node', '-e', script);
}

describe('NetworkPolicy on the cluster', () => {
  let address = '';

  before(async () => {
    await kubectl('create', 'namespace', namespace);
    const pods = [
      pod('server', { app: 'server' }, server),
      pod('friend', { role: 'friend' }, 'setInterval(() => {}, 1e6)'),
      pod('stranger', { role: 'stranger' }, 'setInterval(() => {}, 1e6)'),
    ];
    await kubectlWith({ apiVersion: 'v1', kind: 'List', items: pods }, 'apply', '-f', '-');
    await kubectl('wait', '-n', namespace, '--for=condition=Ready', 'pod', '--all', '--timeout=60s');
    address = (await get<{ status: { podIP: string } }>('pod', 'server', '-n', namespace)).status.podIP;
  });

  after(() => kubectl('delete', 'namespace', namespace, '--wait=true', '--timeout=60s'));

  it('lets everybody in while no policy selects the pod (positive control)', async () => {
    await eventually('stranger connects', 10, async () =>
      (await connect('stranger', address)) === 'open' ? true : undefined,
    );
  });

  it('lets in only the declared peer once a policy selects the pod', async () => {
    await kubectlWith(allowClient, 'apply', '-f', '-');
    const refused = await eventually('stranger is refused', 10, async () => {
      const outcome = await connect('stranger', address);
      return outcome === 'open' ? undefined : outcome;
    });
    assert.match(refused, /TimeoutError|ECONNREFUSED|EHOSTUNREACH|UND_ERR_CONNECT_TIMEOUT/);
    assert.equal(await connect('friend', address), 'open');
  });

  it('cuts egress of an isolated pod, the API server on the node included', async () => {
    await kubectlWith(
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'friend-egress', namespace },
        spec: { podSelector: { matchLabels: { role: 'friend' } }, policyTypes: ['Egress'] },
      },
      'apply',
      '-f',
      '-',
    );
    await eventually('friend is cut', 10, async () =>
      (await connect('friend', address)) === 'open' ? undefined : true,
    );
    const script = `const s = require('net').connect(+process.env.KUBERNETES_SERVICE_PORT, process.env.KUBERNETES_SERVICE_HOST);
      s.setTimeout(1500, () => { console.log('cut'); process.exit(); });
      s.on('connect', () => { console.log('open'); process.exit(); }).on('error', (e) => { console.log('cut'); process.exit(); })`;
    assert.equal(await kubectl('exec', '-n', namespace, 'friend', '--', 'node', '-e', script), 'cut');
    assert.equal(await kubectl('exec', '-n', namespace, 'stranger', '--', 'node', '-e', script), 'open');
  });

  it('opens again when the policies go', async () => {
    await kubectl('delete', 'networkpolicy', '--all', '-n', namespace);
    await eventually('stranger connects', 10, async () =>
      (await connect('stranger', address)) === 'open' ? true : undefined,
    );
  });
});
