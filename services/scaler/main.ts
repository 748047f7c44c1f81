import { join } from 'node:path';
import {
  ConfigError,
  createLogger,
  endWhenRenewed,
  fetchTrusting,
  messageOf,
  onShutdown,
  readConfig,
  startHealthServer,
  temporalConnectionOptions,
} from '@somagent/kit';
import { Connection } from '@temporalio/client';
import { type ScalerConfig, scalerSchema } from './config.ts';
import { DeploymentScale } from './deployment.ts';
import { Scaler } from './scaler.ts';
import { modelLoad, TaskQueue } from './signals.ts';

const log = createLogger({ service: 'scaler' });

/** Scales until the process is asked to end. */
async function run(config: ScalerConfig): Promise<void> {
  if (config.MIN_REPLICAS > config.MAX_REPLICAS) {
    throw new ConfigError([`MIN_REPLICAS is ${config.MIN_REPLICAS}. Set it to at most MAX_REPLICAS.`]);
  }
  const connection = await Connection.connect(temporalConnectionOptions(config));
  const queue = new TaskQueue(connection, config.TEMPORAL_NAMESPACE, config.TASK_QUEUE);
  const model = { url: config.SLM_URL, tokenFile: config.SLM_TOKEN_FILE, fetch: fetchTrusting(config.SLM_CA_FILE) };
  const scaler = new Scaler({
    scale: new DeploymentScale({
      url: config.KUBERNETES_URL,
      directory: config.KUBERNETES_DIR,
      namespace: config.DEPLOYMENT_NAMESPACE,
      name: config.DEPLOYMENT,
      fetch: fetchTrusting(join(config.KUBERNETES_DIR, 'ca.crt')),
    }),
    sources: { backlog: () => queue.backlog(), model: () => modelLoad(model) },
    rules: {
      min: config.MIN_REPLICAS,
      max: config.MAX_REPLICAS,
      workPerReplica: config.WORK_PER_REPLICA,
      downAfterMs: config.DOWN_AFTER_MS,
    },
    interval: config.INTERVAL_MS,
    log,
  });
  scaler.start();
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: { scaler: () => scaler.check() },
    documents: { '/scaling': () => scaler.last ?? null },
  });
  const { MIN_REPLICAS: min, MAX_REPLICAS: max, DEPLOYMENT: deployment } = config;
  log.info({ deployment, min, max }, 'scaler is running');
  endWhenRenewed(config, log);
  onShutdown(log, 15_000, [
    { name: 'stop looking', run: () => scaler.stop() },
    { name: 'close Temporal', run: () => connection.close() },
    { name: 'close health', run: () => health.close() },
  ]);
}

async function main(): Promise<void> {
  await run(readConfig(scalerSchema));
}

main().catch(fail);

function fail(error: unknown): never {
  // The stack helps only where the cause is not the configuration.
  log.fatal(error instanceof ConfigError ? {} : { err: error }, messageOf(error));
  process.exit(1);
}
