import { ConfigError, createLogger, messageOf, readConfig } from '@somagent/kit';
import { reconcileSchema, workerSchema } from './config.ts';
import { migrateOpenFga, migrateSchema } from './migrate.ts';
import { connectParts } from './parts.ts';
import { describeDifference } from './reconciliation.ts';
import { runWorker } from './worker.ts';

const log = createLogger({ service: 'relations' });

/** Prints what differs and, unless it shall only report, repairs it. */
async function reconcile(only: string | undefined): Promise<void> {
  if (only !== undefined && only !== '--report') {
    throw new ConfigError([`option ${only} of reconcile is unknown. Use --report, or none to repair.`]);
  }
  const parts = await connectParts(readConfig(reconcileSchema), log);
  try {
    const { reconciliation } = parts;
    const report = only === '--report' ? await reconciliation.report() : await reconciliation.repair();
    const differences = report.differences.map(describeDifference);
    process.stdout.write(`${JSON.stringify({ ...report, differences }, undefined, 2)}\n`);
  } finally {
    await parts.close();
  }
}

const commands: Readonly<Record<string, (option: string | undefined) => Promise<void>>> = {
  worker: () => runWorker(readConfig(workerSchema), log),
  migrate: () => migrateOpenFga(readConfig(migrateSchema), log),
  reconcile,
};

async function main([name, option]: readonly string[]): Promise<void> {
  const command = name === undefined ? undefined : commands[name];
  if (command === undefined) {
    throw new ConfigError([`command ${name ?? '(none)'} is unknown. Use worker, reconcile or migrate.`]);
  }
  await command(option);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  // The stack helps only where the cause is not the configuration.
  log.fatal(error instanceof ConfigError ? {} : { err: error }, messageOf(error));
  process.exit(1);
});
