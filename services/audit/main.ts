import { ConfigError, readConfig } from '@somagent/kit/config.ts';
import { createLogger, messageOf } from '@somagent/kit/log.ts';
import { KeyError } from './checkpoint/keys.ts';
import { runWitness } from './witness.ts';
import { witnessSchema } from './witness-config.ts';

const log = createLogger({ service: 'audit' });

// Loaded only by the commands that need it: the witness needs a quarter less memory.
async function runService(): Promise<void> {
  const [{ serve }, { serveSchema }] = await Promise.all([import('./serve.ts'), import('./config.ts')]);
  await serve(readConfig(serveSchema), log);
}

async function runMigrations(): Promise<void> {
  const [{ migrateDatabase }, { migrateSchema }] = await Promise.all([import('./migrate.ts'), import('./config.ts')]);
  await migrateDatabase(readConfig(migrateSchema), log);
}

const commands: Readonly<Record<string, () => Promise<void>>> = {
  serve: runService,
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
