import { setTimeout as sleep } from 'node:timers/promises';
import { KafkaConsumer, type Logger, messageOf, onShutdown, startHealthServer } from '@somagent/kit';
import type { WorkerConfig } from './config.ts';
import { connectParts, type Parts } from './parts.ts';
import { followedTopics, Synchronization } from './sync.ts';
import { TupleWatch } from './watch.ts';

/** Follows events and changes, and reconciles from time to time, until the process is asked to end. */
export async function runWorker(config: WorkerConfig, log: Logger): Promise<void> {
  const parts = await connectPatiently(config, log);
  const synchronization = new Synchronization(parts.store, log);
  const consumer = new KafkaConsumer(config, {
    group: 'relations',
    topics: followedTopics,
    log,
    linger: 50,
    handle: (messages) => synchronization.apply(messages),
  });
  const watch = new TupleWatch({ ...parts, log });
  const stop = new AbortController();
  consumer.start();
  watch.start();
  const reconciling = reconcileAgain(parts, config.RECONCILE_SECONDS * 1000, log, stop.signal);
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    checks: {
      kafka: async () => {
        if (!consumer.joined) throw new Error('is not a member of its consumer group');
      },
      sessions: () => parts.sessions.check(),
    },
  });
  log.info({ store: config.OPENFGA_STORE }, 'relations are followed');
  onShutdown(log, 28_000, [
    { name: 'stop being ready', run: () => health.drain() },
    { name: 'stop reading events', run: () => consumer.stop() },
    { name: 'stop watching changes', run: () => watch.stop() },
    { name: 'stop reconciling', run: () => stop.abort() },
    { name: 'finish a reconciliation', run: () => reconciling },
    { name: 'close connections', run: () => parts.close() },
    { name: 'close health', run: () => health.close() },
  ]);
}

/** OpenFGA may come later than this service. */
async function connectPatiently(config: WorkerConfig, log: Logger): Promise<Parts> {
  for (;;) {
    try {
      return await connectParts(config, log);
    } catch (error) {
      log.warn({ url: config.OPENFGA_URL, reason: messageOf(error) }, 'OpenFGA cannot be prepared yet');
      await sleep(1000);
    }
  }
}

async function reconcileAgain(parts: Parts, interval: number, log: Logger, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const done = await parts.reconciliation.repair().then(
      ({ tuples, added, removed }) => {
        log.info({ tuples, added, removed }, 'relations were reconciled');
        return true;
      },
      (error: unknown) => {
        log.warn({ reason: messageOf(error) }, 'relations cannot be reconciled yet');
        return false;
      },
    );
    // Sources that are away are asked again soon.
    await sleep(done ? interval : Math.min(interval, 2000), undefined, { signal }).catch(() => undefined);
  }
}
