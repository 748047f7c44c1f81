import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { AppsV1Api, CoreV1Api, RbacAuthorizationV1Api } from '@kubernetes/client-node';
import { startApiServer, type TestApiServer } from '@somagent/bootstrap/testing/api-server.ts';
import { createLogger, fetchTrusting } from '@somagent/kit';
import { startTemporal, type TestTemporal } from '@somagent/orchestrator/testing/temporal.ts';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { DeploymentScale } from './deployment.ts';
import { Scaler } from './scaler.ts';
import { modelLoad, sumOf, TaskQueue } from './signals.ts';
import { startSlm, type TestSlm } from './testing/slm.ts';

const namespace = 'local-services';
const taskQueue = 'sessions';
const quiet = createLogger({ service: 'scaler-test', level: 'silent' });

describe('the scaler, between a real Temporal, a real model and a real API server', () => {
  let temporal: TestTemporal;
  let connection: Connection;
  let api: TestApiServer;
  let slm: TestSlm;
  let folder: string;

  before(async () => {
    Runtime.install({ logger: new DefaultLogger('ERROR') });
    folder = await mkdtemp(join(tmpdir(), 'scaler-'));
    [temporal, api, slm] = await Promise.all([startTemporal(), startApiServer(), startSlm()]);
    connection = await Connection.connect({ address: temporal.address });
    await createObjects();
  });
  after(async () => {
    await connection.close();
    await Promise.all([temporal.stop(), api.stop(), slm.stop()]);
    await rm(folder, { recursive: true, force: true });
  });

  /** Two Deployments, and an account with exactly the right that the construct gives. */
  async function createObjects(): Promise<void> {
    const core = api.admin.makeApiClient(CoreV1Api);
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: 'scaler' } } });
    const apps = api.admin.makeApiClient(AppsV1Api);
    for (const name of ['orchestrator', 'gateway'])
      await apps.createNamespacedDeployment({ namespace, body: deployment(name) });
    const rbac = api.admin.makeApiClient(RbacAuthorizationV1Api);
    await rbac.createNamespacedRole({
      namespace,
      body: {
        metadata: { name: 'scaler' },
        rules: [
          {
            apiGroups: ['apps'],
            resources: ['deployments/scale'],
            resourceNames: ['orchestrator'],
            verbs: ['get', 'update'],
          },
        ],
      },
    });
    await rbac.createNamespacedRoleBinding({
      namespace,
      body: {
        metadata: { name: 'scaler' },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'scaler' },
        subjects: [{ kind: 'ServiceAccount', name: 'scaler', namespace }],
      },
    });
    const body = { spec: { audiences: [], expirationSeconds: 600 } };
    const { status } = await core.createNamespacedServiceAccountToken({ name: 'scaler', namespace, body });
    await writeFile(join(folder, 'token'), status?.token ?? '');
    await writeFile(join(folder, 'ca.crt'), Buffer.from(api.admin.getCurrentCluster()?.caData ?? '', 'base64'));
  }

  const scaleOf = (name: string) =>
    new DeploymentScale({
      url: api.admin.getCurrentCluster()?.server ?? '',
      directory: folder,
      namespace,
      name,
      fetch: fetchTrusting(join(folder, 'ca.crt')),
    });

  it('may change the size of its Deployment, and nothing else', async () => {
    const scale = scaleOf('orchestrator');
    const before = await scale.read();
    await scale.write(2, before);
    assert.equal((await scale.read()).wanted, 2);
    await assert.rejects(scale.write(3, before), /answered PUT .*\/deployments\/orchestrator\/scale with 409/);
    await assert.rejects(scaleOf('gateway').read(), /answered GET .*\/deployments\/gateway\/scale with 403/);
    await scale.write(1, await scale.read());
  });

  it('says what the model is at', async () => {
    assert.deepEqual(await modelLoad(slm), { ongoing: 0, waiting: 0, replicas: 1 });
    const answers = Promise.all(Array.from({ length: 8 }, () => slm.generate(120)));
    let most = { ongoing: 0, waiting: 0, replicas: 0 };
    const finished = answers.then(() => true);
    while (!(await Promise.race([finished, modelLoad(slm).then((load) => keepMost(load))])));
    function keepMost(load: typeof most): false {
      if (load.ongoing + load.waiting > most.ongoing + most.waiting) most = load;
      return false;
    }
    assert.ok(most.ongoing >= 1, JSON.stringify(most));
    assert.ok(most.waiting >= 3, JSON.stringify(most));
    assert.deepEqual(new Set(await answers), new Set([200]));
    assert.throws(() => sumOf('# TYPE other gauge\nother 1\n', 'slm_waiting'), /have no slm_waiting/);
  });

  it('goes up with the backlog of the task queue, and down once the work is done', async () => {
    const queue = new TaskQueue(connection, temporal.namespace, taskQueue);
    assert.equal((await queue.backlog()).tasks, 0);
    const client = new Client({ connection, namespace: temporal.namespace });
    const start = (index: number) =>
      client.workflow.start('session', { taskQueue, workflowId: `session/acme/${index}` });
    const sessions = await Promise.all(Array.from({ length: 40 }, (_, index) => start(index)));
    const scale = scaleOf('orchestrator');
    const scaler = new Scaler({
      scale,
      sources: { backlog: () => queue.backlog(), model: () => modelLoad(slm) },
      rules: { min: 1, max: 3, workPerReplica: 16, downAfterMs: 2000, upEveryMs: 500 },
      interval: 200,
      log: quiet,
    });
    while ((await queue.backlog()).tasks < 40) await pause();
    const up = await scaler.look();
    assert.deepEqual([up.before, up.replicas], [1, 3]);
    assert.equal(up.reason, '40 tasks wait, 0 turns are at the model, 16 per replica');
    assert.equal((await scale.read()).wanted, 3);

    const workers = await NativeConnection.connect({ address: temporal.address });
    const worker = await startWorker(workers);
    const running = worker.run();
    await Promise.all(sessions.map((session) => session.result()));
    scaler.start();
    const sizes = [3];
    while (sizes.at(-1) !== 1) {
      const { wanted } = await scale.read();
      if (wanted !== sizes.at(-1)) sizes.push(wanted);
      await pause();
    }
    assert.deepEqual(sizes, [3, 2, 1]);
    await scaler.check();
    await scaler.stop();
    worker.shutdown();
    await running;
    await workers.close();
  });

  it('says what is missing and changes nothing while a signal is away', async () => {
    const gone = new Scaler({
      scale: scaleOf('orchestrator'),
      sources: {
        backlog: () => Promise.reject(new Error('away')),
        model: () => modelLoad({ ...slm, url: 'https://127.0.0.1:1/v1' }),
      },
      rules: { min: 1, max: 3, workPerReplica: 16, downAfterMs: 0 },
      interval: 200,
      log: quiet,
    });
    assert.deepEqual([(await gone.look()).replicas, gone.last?.reason], [1, 'no signal']);
  });

  function startWorker(workers: NativeConnection): Promise<Worker> {
    return Worker.create({
      connection: workers,
      namespace: temporal.namespace,
      taskQueue,
      workflowsPath: fileURLToPath(new URL('./testing/work.ts', import.meta.url)),
      activities: { turn: async () => pause() },
    });
  }
});

const pause = () => new Promise<void>((done) => setTimeout(done, 100));

function deployment(name: string) {
  const labels = { app: name };
  return {
    metadata: { name },
    spec: {
      replicas: 1,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name, image: 'none' }] } },
    },
  };
}
