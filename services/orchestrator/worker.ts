import { BudgetSweeper } from '@somagent/budget';
import {
  ConfigError,
  ControlState,
  createPool,
  endWhenRenewed,
  KafkaProducer,
  type Logger,
  OutboxRelay,
  onShutdown,
  startHealthServer,
  startTracing,
  temporalConnectionOptions,
  workloadToken,
} from '@somagent/kit';
import { MemoryClient } from '@somagent/memory-gateway/client.ts';
import { createModels, readModelsFile } from '@somagent/models';
import { createPolicyEngine } from '@somagent/policy';
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkerOptions } from '@temporalio/worker';
import { decodeJwt } from 'jose';
import { sql } from 'kysely';
import { createActivities } from './activities.ts';
import type { WorkerConfig } from './config.ts';
import { tenantOfWorkflow } from './contract.ts';
import { openDatabase } from './database.ts';
import { HaltSwitch } from './halt.ts';
import { Model } from './model.ts';
import { SessionRecall } from './recall.ts';
import { SessionStore } from './session-store.ts';
import { StepPolicy } from './step-policy.ts';
import { TurnBudget } from './turn-budget.ts';
import { workflowSource } from './workflow-source.ts';

/** Runs the worker until the process is asked to end; running activities get 20 s to finish. */
export async function runWorker(config: WorkerConfig, log: Logger, program: string): Promise<void> {
  startTracing('orchestrator', log);
  Runtime.install({
    logger: temporalLogger(log),
    shutdownSignals: [],
    // Its native core would write lines of its own kind beside ours.
    telemetryOptions: { logging: { filter: 'WARN', forward: {} } },
  });
  const db = openDatabase(createPool(config, log));
  const store = new SessionStore(db);
  const models = createModels(readModelsFile(config.MODELS_FILE), { log });
  const control = controlOf(config, log);
  const engine = createPolicyEngine(config, {
    service: 'orchestrator',
    store: (events) => store.record(null, events),
    log,
  });
  const kafka = new KafkaProducer(config, { clientId: 'orchestrator' });
  const relay = new OutboxRelay({ database: config, sink: kafka, log });
  const budgets = new BudgetSweeper({ rows: db.platform, log });
  const halts = new HaltSwitch({ control, log, record: (events) => store.record(null, events) });
  control.start();
  relay.start();
  budgets.start();
  await Promise.all([engine.start(), known(control)]);
  halts.start();
  const memory = memoryOf(config);
  const connection = await NativeConnection.connect(temporalConnectionOptions(config));
  const worker = await Worker.create({
    connection,
    namespace: config.TEMPORAL_NAMESPACE,
    taskQueue: config.TASK_QUEUE,
    ...workflowSource(program),
    activities: createActivities({
      store,
      halts,
      model: new Model({ models, name: config.SESSION_MODEL, maxTokens: config.SLM_MAX_TOKENS }),
      budget: new TurnBudget(db, log),
      policy: new StepPolicy({ engine, control, workload: subjectOf(config.IDENTITY_TOKEN_FILE) }),
      recall: new SessionRecall({ log, ...(memory && { client: memory }) }),
      ...(memory && { memory }),
      historyTurns: config.HISTORY_TURNS,
    }),
    ...tuning(config),
  });
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      worker: async () => ensure(worker.getState() === 'RUNNING', `the worker is ${worker.getState()}`),
      temporal: async () => void (await connection.workflowService.getSystemInfo({})),
      postgres: async () => void (await sql`select 1`.execute(db.untenanted)),
      control: () => control.check(),
      policy: engine.check,
    },
  });

  const running = worker.run();
  onShutdown(log, 28_000, [
    { name: 'stop taking traffic', run: () => health.drain() },
    { name: 'drain the worker', run: () => drain(worker, running) },
    { name: 'close Temporal', run: () => connection.close() },
    { name: 'close models', run: () => models.close() },
    { name: 'stop following halts', run: () => halts.stop() },
    { name: 'stop following control', run: () => control.stop() },
    { name: 'stop looking for policies', run: () => engine.stop() },
    { name: 'stop returning reservations', run: () => budgets.stop() },
    { name: 'stop the relay', run: () => relay.stop() },
    { name: 'close Kafka', run: () => kafka.close() },
    { name: 'close Postgres', run: () => db.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
  endWhenRenewed(config, log);
  log.info({ taskQueue: config.TASK_QUEUE, namespace: config.TEMPORAL_NAMESPACE }, 'worker is running');
  await running;
}

function ensure(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}

const controlOf = (config: WorkerConfig, log: Logger): ControlState =>
  new ControlState({
    url: config.IDENTITY_URL,
    caFile: config.IDENTITY_CA_FILE,
    tokenFile: config.IDENTITY_TOKEN_FILE,
    log,
  });

/** Nobody knows who is halted before the first snapshot: no work begins until then. */
function known(control: ControlState): Promise<void> {
  return new Promise((resolve) => {
    const close = control.onChange(() => {
      // At once, before onChange has returned, when the state was known already.
      queueMicrotask(() => close());
      resolve();
    });
  });
}

/** `sub` of this worker's own token: the cluster signed it, and only who receives it needs to verify it. */
const subjectOf = (tokenFile: string): string => decodeJwt(workloadToken(tokenFile)).sub ?? '';

/** Without an address there is no memory: turns go on without. An address without the rest is a mistake. */
function memoryOf(config: WorkerConfig): MemoryClient | undefined {
  const { MEMORY_URL: url, MEMORY_CA_FILE: caFile, MEMORY_TOKEN_FILE: tokenFile } = config;
  if (url === undefined) return undefined;
  if (caFile === undefined || tokenFile === undefined) {
    throw new ConfigError(['MEMORY_URL is set. Set MEMORY_CA_FILE and MEMORY_TOKEN_FILE too.']);
  }
  return new MemoryClient({ url, caFile, tokenFile });
}

function drain(worker: Worker, running: Promise<void>): Promise<void> {
  worker.shutdown();
  return running;
}

function tuning(config: WorkerConfig): Partial<WorkerOptions> {
  return {
    maxConcurrentActivityTaskExecutions: config.MAX_GENERATIONS,
    maxCachedWorkflows: 500,
    // When a worker dies its sessions are picked up by another after this long, not after the default 10 s.
    stickyQueueScheduleToStartTimeout: '2s',
    // A cancellation reaches an activity in the answer to its heartbeat: this bounds how long that takes.
    maxHeartbeatThrottleInterval: '250ms',
    defaultHeartbeatThrottleInterval: '250ms',
    shutdownGraceTime: '20s',
    shutdownForceTime: '25s',
  };
}

function temporalLogger(log: Logger): DefaultLogger {
  const levels = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;
  return new DefaultLogger('INFO', ({ level, message, meta }) => {
    const { error, ...fields } = meta ?? {};
    const tenant = tenantOfWorkflow(String(fields.workflowId ?? ''));
    const line = tenant === undefined ? fields : { ...fields, tenant };
    log[levels[level]](error === undefined ? line : { ...line, err: error }, message);
  });
}
