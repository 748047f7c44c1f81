import { ConfigError, createLogger, createPool, messageOf, readConfig, TenantDatabase } from '@somagent/kit';
import { KeyError } from './checkpoint/keys.ts';
import { migrateSchema, serveSchema, witnessSchema } from './config.ts';
import { migrate } from './log/migrations.ts';
import { serve } from './serve.ts';
import { runWitness } from './witness.ts';

const log = createLogger({ service: 'audit' });

async function runMigrations(): Promise<void> {
  const config = readConfig(migrateSchema);
  const db = new TenantDatabase<object>(createPool(config, log));
  try {
    const applied = await migrate(db.untenanted, config.AUDIT_ROLE);
    log.info({ applied: applied.map(({ migrationName }) => migrationName) }, 'the schema is at its newest version');
  } finally {
    await db.destroy();
  }
}

const commands: Readonly<Record<string, () => Promise<void>>> = {
  serve: () => serve(readConfig(serveSchema), log),
  witness: () => runWitness(readConfig(witnessSchema), log),
  migrate: runMigrations,
};

async function main(name: string | undefined): Promise<void> {
  const command = name === undefined ? undefined : commands[name];
  if (command === undefined) {
    throw new ConfigError([`command ${name ?? '(none)'} is unknown. Use serve, witness or migrate.`]);
  }
  await command();
}

main(process.argv[2]).catch((error: unknown) => {
  // The stack helps only where the cause is not the configuration.
  log.fatal(error instanceof ConfigError || error instanceof KeyError ? {} : { err: error }, messageOf(error));
  process.exit(1);
});
