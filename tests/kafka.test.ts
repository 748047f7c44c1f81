/** Kafka as it is deployed: drift is found and taken back, strangers have no way in, a broker may die. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { imageReference } from '@somagent/images';
import { get, kubectl, kubectlWith } from './support/kubectl.ts';
import { eventually } from './support/wait.ts';

const namespace = 'local-data';
const suffix = randomBytes(3).toString('hex');
const brokers = ['kafka-0', 'kafka-1', 'kafka-2'];

interface Plan {
  readonly topics: readonly { readonly name: string; readonly config: Readonly<Record<string, string>> }[];
}
interface Template {
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> };
      readonly spec: {
        readonly containers: readonly object[];
        readonly volumes: readonly { readonly name: string; readonly configMap?: { readonly name: string } }[];
      };
    };
  };
}

async function cronJob(): Promise<Template> {
  const object = await get<{ spec: { jobTemplate: Template } }>('cronjob', 'kafka-drift', '-n', namespace);
  return object.spec.jobTemplate;
}

/** Name of the ConfigMap with the plan that the platform declares. */
async function declaredPlan(): Promise<string> {
  const volume = (await cronJob()).spec.template.spec.volumes.find(({ configMap }) => configMap !== undefined);
  assert.ok(volume?.configMap !== undefined, 'the CronJob mounts no plan');
  return volume.configMap.name;
}

/** Runs the reconciliation with a plan. @returns the counts of its last line */
async function reconcile(name: string, configMap: string): Promise<Readonly<Record<string, unknown>>> {
  const job = await cronJob();
  const volumes = job.spec.template.spec.volumes.map((volume) =>
    volume.configMap === undefined ? volume : { ...volume, configMap: { ...volume.configMap, name: configMap } },
  );
  const template = { ...job.spec.template, spec: { ...job.spec.template.spec, volumes } };
  const metadata = { name: `${name}-${suffix}`, namespace };
  await kubectlWith(
    { apiVersion: 'batch/v1', kind: 'Job', metadata, spec: { ...job.spec, template } },
    'create',
    '-f',
    '-',
  );
  await kubectl('wait', '-n', namespace, '--for=condition=Complete', `job/${metadata.name}`, '--timeout=180s');
  const lines = (await kubectl('logs', '-n', namespace, `job/${metadata.name}`)).split('\n');
  const last = lines.map((line) => JSON.parse(line)).find(({ message }) => message === 'kafka done');
  const { created, repaired, removed } = last;
  return { created, repaired, removed };
}

describe('Kafka on the cluster', () => {
  after(async () => {
    const jobs = ['same', 'drifted', 'repaired'].map((name) => `job/${name}-${suffix}`);
    await kubectl('delete', '-n', namespace, '--ignore-not-found', ...jobs, `configmap/drifted-${suffix}`);
    await kubectl('delete', '-n', namespace, '--ignore-not-found', `pod/peer-${suffix}`, `pod/stranger-${suffix}`);
  });

  it('has what is declared, and takes back what somebody changed', { timeout: 600_000 }, async () => {
    const plan = await declaredPlan();
    const nothing = { created: 0, repaired: 0, removed: 0 };
    await reconcile('same', plan);
    const { data } = await get<{ data: { 'plan.json': string } }>('configmap', plan, '-n', namespace);
    const declared = JSON.parse(data['plan.json']) as Plan;
    const topics = declared.topics.map((topic) =>
      topic.name === 'usage.tokens' ? { ...topic, config: { ...topic.config, 'retention.ms': '1000' } } : topic,
    );
    const metadata = { name: `drifted-${suffix}`, namespace };
    const drifted = { 'plan.json': JSON.stringify({ ...declared, topics }) };
    await kubectlWith({ apiVersion: 'v1', kind: 'ConfigMap', metadata, data: drifted }, 'create', '-f', '-');
    assert.deepEqual(await reconcile('drifted', metadata.name), { ...nothing, repaired: 1 });
    assert.deepEqual(await reconcile('repaired', plan), { ...nothing, repaired: 1 });
  });

  it('shows no password in the command line or the log of a broker', async () => {
    const secret = await get<{ data: { password: string } }>('secret', 'kafka-admin', '-n', namespace);
    const password = Buffer.from(secret.data.password, 'base64').toString();
    assert.ok(password.length >= 32);
    for (const pod of brokers) {
      const line = await kubectl('exec', '-n', namespace, pod, '--', 'cat', '/proc/1/cmdline');
      assert.match(line, /Broker/);
      assert.equal(line.includes(password), false, `${pod} has it in its command line`);
      assert.equal((await kubectl('logs', '-n', namespace, pod)).includes(password), false, `${pod} has logged it`);
    }
  });

  it('can be reached by its declared peers only', { timeout: 240_000 }, async () => {
    const { podIP } = (await get<{ status: { podIP: string } }>('pod', 'kafka-0', '-n', namespace)).status;
    await start(`peer-${suffix}`, { 'somagent.dev/network': 'kafka-topics' });
    await start(`stranger-${suffix}`, { 'somagent.dev/network': `nobody-${suffix}` });
    await eventually('the peer connects', 20, async () =>
      (await connect(`peer-${suffix}`, podIP, 9093)) === 'open' ? true : undefined,
    );
    assert.notEqual(await connect(`peer-${suffix}`, podIP, 9091), 'open');
    assert.notEqual(await connect(`stranger-${suffix}`, podIP, 9093), 'open');
  });

  it('goes on while a broker dies, which comes back in step', { timeout: 300_000 }, async (t) => {
    const { metadata } = await get<{ metadata: { uid: string } }>('pod', 'kafka-2', '-n', namespace);
    await kubectl('delete', 'pod', '-n', namespace, 'kafka-2', '--grace-period=0', '--force');
    const started = performance.now();
    await eventually('another pod kafka-2', 60, async () => {
      const next = await get<{ metadata: { uid: string } }>('pod', 'kafka-2', '-n', namespace);
      return next.metadata.uid === metadata.uid ? undefined : true;
    });
    for (const pod of ['kafka-0', 'kafka-1']) {
      await kubectl('wait', '-n', namespace, '--for=condition=Ready', `pod/${pod}`, '--timeout=1s');
    }
    await kubectl('wait', '-n', namespace, '--for=condition=Ready', 'pod/kafka-2', '--timeout=180s');
    t.diagnostic(`ready and in step after ${((performance.now() - started) / 1000).toFixed(1)} s`);
  });
});

async function start(name: string, labels: Readonly<Record<string, string>>): Promise<void> {
  const securityContext = {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  };
  const amounts = { cpu: '10m', memory: '64Mi' };
  const container = {
    ...{ name: 'main', image: imageReference('node', { registry: 'localhost:5000' }), securityContext },
    command: ['node', '-e', 'setInterval(() => {}, 1e6)'],
    resources: { requests: amounts, limits: { ...amounts, cpu: '500m' } },
  };
  const spec = {
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 0,
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [container],
  };
  await kubectlWith(
    { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace, labels }, spec },
    'create',
    '-f',
    '-',
  );
  await kubectl('wait', '-n', namespace, '--for=condition=Ready', `pod/${name}`, '--timeout=90s');
}

/** One TCP connection from a pod: `open`, or why there is none. */
async function connect(pod: string, address: string, port: number): Promise<string> {
  const script = `const s = require('net').connect({ host: '${address}', port: ${port}, timeout: 2000 });
    const say = (what) => { console.log(what); process.exit(); };
    s.on('connect', () => say('open')).on('timeout', () => say('timeout')).on('error', (e) => say(e.code));`;
  return kubectl('exec', '-n', namespace, pod, '--', 'node', '-e', script);
}
