import { ConfigError, createLogger, messageOf, readConfig } from '@somagent/kit';
import { migrateSchema, serveSchema } from './config.ts';
import { migrateAll } from './migrate.ts';
import { serve } from './serve.ts';

const log = createLogger({ service: 'analytics' });

const commands: Readonly<Record<string, () => Promise<void>>> = {
  serve: () => serve(readConfig(serveSchema), log),
  migrate: () => migrateAll(readConfig(migrateSchema), log),
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
