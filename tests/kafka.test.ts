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
  readonly acls: readonly object[];
  readonly topics: readonly { readonly name: string; readonly config: Readonly<Record<string, string>> }[];
}
type Line = Readonly<Record<string, unknown>>;
interface Template {
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> };
      readonly spec: {
        readonly containers: readonly { readonly command: readonly string[] }[];
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

/** Runs a command of the bootstrap image with a plan, whether it ends well or not. @returns its lines */
async function runJob(name: string, command: string, configMap: string): Promise<readonly Line[]> {
  const job = await cronJob();
  const volumes = job.spec.template.spec.volumes.map((volume) =>
    volume.configMap === undefined ? volume : { ...volume, configMap: { ...volume.configMap, name: configMap } },
  );
  const containers = job.spec.template.spec.containers.map((container) => ({
    ...container,
    command: container.command.map((word) => (word === 'kafka' ? command : word)),
  }));
  const template = { ...job.spec.template, spec: { ...job.spec.template.spec, containers, volumes } };
  const metadata = { name: `${name}-${suffix}`, namespace };
  const spec = { ...job.spec, backoffLimit: 0, template };
  await kubectlWith({ apiVersion: 'batch/v1', kind: 'Job', metadata, spec }, 'create', '-f', '-');
  await eventually(`the end of ${name}`, 180, async () => {
    const { status } = await get<{ status: { succeeded?: number; failed?: number } }>(
      'job',
      metadata.name,
      '-n',
      namespace,
    );
    return status.succeeded !== undefined || status.failed !== undefined ? true : undefined;
  });
  const text = await kubectl('logs', '-n', namespace, `job/${metadata.name}`);
  return text.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as Line] : []));
}

/** Runs the reconciliation with a plan. @returns the counts of its last line */
async function reconcile(name: string, configMap: string): Promise<Readonly<Record<string, unknown>>> {
  const last = (await runJob(name, 'kafka', configMap)).find(({ message }) => message === 'kafka done');
  assert.ok(last, `${name} did not get to its end`);
  const { created, repaired, removed } = last;
  return { created, repaired, removed };
}

/** What the running brokers let users do besides the declared plan, or refuse of it, in words. */
async function rightsBesides(name: string, plan: string): Promise<readonly unknown[]> {
  const lines = await runJob(name, 'kafka-rights', plan);
  const summary = lines.find(({ message }) => message === 'kafka rights');
  assert.ok(summary && Number(summary.users) > 0, `${name} asked for nobody: ${JSON.stringify(lines.at(-1))}`);
  const found = lines.filter(({ message }) => message === 'a right is not as declared');
  assert.equal(found.length, summary.differences);
  return found.map(({ difference }) => difference);
}

describe('Kafka on the cluster', () => {
  after(async () => {
    const jobs = ['same', 'drifted', 'repaired', 'rights', 'opened', 'found', 'closed', 'again'].map(
      (name) => `job/${name}-${suffix}`,
    );
    await kubectl(
      'delete',
      '-n',
      namespace,
      '--ignore-not-found',
      ...jobs,
      ...['drifted', 'opened'].map((name) => `configmap/${name}-${suffix}`),
    );
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

  it('lets each user do exactly what is declared, and finds a right that somebody added', {
    timeout: 900_000,
  }, async () => {
    const plan = await declaredPlan();
    assert.deepEqual(await rightsBesides('rights', plan), []);
    const { data } = await get<{ data: { 'plan.json': string } }>('configmap', plan, '-n', namespace);
    const declared = JSON.parse(data['plan.json']) as Plan;
    const planted = {
      user: 'gateway',
      resource: { type: 'topic', name: 'identity.changes' },
      operations: ['read'],
    };
    const metadata = { name: `opened-${suffix}`, namespace };
    const opened = { 'plan.json': JSON.stringify({ ...declared, acls: [...declared.acls, planted] }) };
    await kubectlWith({ apiVersion: 'v1', kind: 'ConfigMap', metadata, data: opened }, 'create', '-f', '-');
    const nothing = { created: 0, repaired: 0, removed: 0 };
    assert.deepEqual(await reconcile('opened', metadata.name), { ...nothing, created: 1 });
    const found = await rightsBesides('found', plan);
    assert.ok(
      found.length >= 2 && found.every((text) => `${text}`.includes(`${planted.user} may `)),
      JSON.stringify(found),
    );
    assert.ok(found.some((text) => /may read topic identity\.changes, which is not declared/.test(`${text}`)));
    assert.deepEqual(await reconcile('closed', plan), { ...nothing, removed: 1 });
    assert.deepEqual(await rightsBesides('again', plan), []);
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
