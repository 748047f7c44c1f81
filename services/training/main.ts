import { ConfigError, createLogger, createPool, messageOf, readConfig, TenantDatabase } from '@somagent/kit';
import { migrateSchema, serveSchema } from './config.ts';
import type { Tables } from './database.ts';
import { migrate } from './migrations.ts';
import { serve } from './serve.ts';

const log = createLogger({ service: 'training' });

async function runMigrations(): Promise<void> {
  const db = new TenantDatabase<Tables>(createPool(readConfig(migrateSchema), log));
  try {
    const applied = await migrate(db.untenanted);
    log.info({ applied: applied.map(({ migrationName }) => migrationName) }, 'the schema is at its newest version');
  } finally {
    await db.destroy();
  }
}

const commands: Readonly<Record<string, () => Promise<void>>> = {
  serve: () => serve(readConfig(serveSchema), log),
  migrate: runMigrations,
};

async function main(name: string | undefined): Promise<void> {
  const command = name === undefined ? undefined : commands[name];
  if (command === undefined) throw new ConfigError([`command ${name ?? '(none)'} is unknown. Use serve or migrate.`]);
  await command();
}

main(process.argv[2]).catch((error: unknown) => {
  // The stack helps only where the cause is not the configuration.
  log.fatal(error instanceof ConfigError ? {} : { err: error }, messageOf(error));
  process.exit(1);
});
