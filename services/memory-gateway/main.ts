import { ConfigError, createLogger, createPool, messageOf, readConfig, TenantDatabase } from '@somagent/kit';
import { migrateSchema, reindexSchema, serveSchema } from './config.ts';
import type { Tables } from './database.ts';
import { openIndex } from './index-parts.ts';
import { migrate } from './migrations.ts';
import { reindex } from './reindex.ts';
import { serve } from './serve.ts';

const log = createLogger({ service: 'memory-gateway' });

async function runMigrations(): Promise<void> {
  const db = new TenantDatabase<Tables>(createPool(readConfig(migrateSchema), log));
  try {
    const applied = await migrate(db.untenanted);
    log.info({ applied: applied.map(({ migrationName }) => migrationName) }, 'the schema is at its newest version');
  } finally {
    await db.destroy();
  }
}

async function runReindex(): Promise<void> {
  const { database, vectors } = openIndex(readConfig(reindexSchema), log);
  try {
    log.info(await reindex(database, vectors), 'the vectors are built again by the indexer of the running service');
  } finally {
    vectors.close();
    await database.destroy();
  }
}

const commands: Readonly<Record<string, () => Promise<void>>> = {
  serve: () => serve(readConfig(serveSchema), log),
  migrate: runMigrations,
  reindex: runReindex,
};

async function main(name: string | undefined): Promise<void> {
  const command = name === undefined ? undefined : commands[name];
  if (command === undefined) {
    throw new ConfigError([`command ${name ?? '(none)'} is unknown. Use serve, migrate or reindex.`]);
  }
  await command();
}

main(process.argv[2]).catch((error: unknown) => {
  // The stack helps only where the cause is not the configuration.
  log.fatal(error instanceof ConfigError ? {} : { err: error }, messageOf(error));
  process.exit(1);
});
