import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  createPool,
  endWhenRenewed,
  type Logger,
  onShutdown,
  startHealthServer,
  temporalConnectionOptions,
} from '@somagent/kit';
import { DefaultLogger, NativeConnection, Runtime, Worker, type WorkerOptions } from '@temporalio/worker';
import { sql } from 'kysely';
import { createActivities } from './activities.ts';
import type { WorkerConfig } from './config.ts';
import { openDatabase } from './database.ts';
import { Model } from './model.ts';
import { SessionStore } from './session-store.ts';

/** The prebuilt bundle beside the program, as in the image; from sources, the workflows themselves. */
export function workflowSource(program: string): Pick<WorkerOptions, 'workflowBundle' | 'workflowsPath'> {
  const codePath = join(dirname(program), 'workflow-bundle.js');
  return existsSync(codePath)
    ? { workflowBundle: { codePath } }
    : { workflowsPath: join(dirname(program), 'workflows.ts') };
}

/** Runs the worker until the process is asked to end; running activities get 20 s to finish. */
export async function runWorker(config: WorkerConfig, log: Logger, program: string): Promise<void> {
  Runtime.install({ logger: temporalLogger(log), shutdownSignals: [] });
  const pool = createPool(config, log);
  const db = openDatabase(pool);
  const connection = await NativeConnection.connect(temporalConnectionOptions(config));
  const model = new Model({
    url: config.SLM_URL,
    model: config.SLM_MODEL,
    apiKeyFile: config.SLM_API_KEY_FILE,
    caFile: config.SLM_CA_FILE,
    maxTokens: config.SLM_MAX_TOKENS,
  });
  const worker = await Worker.create({
    connection,
    namespace: config.TEMPORAL_NAMESPACE,
    taskQueue: config.TASK_QUEUE,
    ...workflowSource(program),
    activities: createActivities({ store: new SessionStore(db), model, historyTurns: config.HISTORY_TURNS }),
    ...tuning(config),
  });
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      worker: async () => {
        if (worker.getState() !== 'RUNNING') throw new Error(`the worker is ${worker.getState()}`);
      },
      temporal: async () => {
        await connection.workflowService.getSystemInfo({});
      },
      postgres: async () => {
        await sql`select 1`.execute(db.untenanted);
      },
    },
  });

  const running = worker.run();
  onShutdown(log, 28_000, [
    { name: 'stop taking traffic', run: () => health.drain() },
    { name: 'drain the worker', run: () => drain(worker, running) },
    { name: 'close Temporal', run: () => connection.close() },
    { name: 'close Postgres', run: () => db.destroy() },
    { name: 'close health', run: () => health.close() },
  ]);
  endWhenRenewed(config, log);
  log.info({ taskQueue: config.TASK_QUEUE, namespace: config.TEMPORAL_NAMESPACE }, 'worker is running');
  await running;
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
    log[levels[level]](error === undefined ? fields : { ...fields, err: error }, message);
  });
}
