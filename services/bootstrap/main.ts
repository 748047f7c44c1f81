import { runAdmission } from './admission/command.ts';
import { runDatabases } from './database/databases.ts';
import { Failure, messageOf } from './failure.ts';
import { runKafka, runKafkaRights } from './kafka/command.ts';
import { runSchemas } from './kafka/schemas.ts';
import { log } from './log.ts';
import { runObjectStore } from './object-store/command.ts';
import { runRealm, runRealmKeys } from './realm/command.ts';
import { runSecrets } from './secrets/command.ts';
import type { Environment } from './settings.ts';
import { runTemporalNamespace } from './temporal/namespace.ts';
import { runTemporalSchema } from './temporal/schema.ts';

const commands: Readonly<Record<string, (env: Environment) => Promise<void>>> = {
  secrets: runSecrets,
  databases: runDatabases,
  'temporal-schema': runTemporalSchema,
  'temporal-namespace': runTemporalNamespace,
  realm: runRealm,
  'realm-keys': runRealmKeys,
  kafka: runKafka,
  'kafka-rights': runKafkaRights,
  schemas: runSchemas,
  'object-store': runObjectStore,
  admission: runAdmission,
};

/** Runs one command. @returns the exit code: 0 done, 1 failed, 2 no such command. */
export async function main(args: readonly string[], env: Environment): Promise<number> {
  const name = args[0] ?? '';
  const command = commands[name];
  if (command === undefined) {
    log.error(`no command "${name}"`, { fix: `use one of: ${Object.keys(commands).join(', ')}` });
    return 2;
  }
  const started = Date.now();
  try {
    await command(env);
    log.info('done', { command: name, milliseconds: Date.now() - started });
    return 0;
  } catch (error) {
    const fix = error instanceof Failure ? error.fix : 'report this as a defect, with the lines above';
    log.error(messageOf(error instanceof Failure ? error.message : error), { command: name, fix });
    return 1;
  }
}

main(process.argv.slice(2), process.env).then((code) => {
  process.exitCode = code;
});
