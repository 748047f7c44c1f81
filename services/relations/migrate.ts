import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { withConnection } from '@somagent/bootstrap/database/connect.ts';
import { withLock } from '@somagent/bootstrap/database/lock.ts';
import { type Logger, postgresVariables } from '@somagent/kit';
import { z } from 'zod';

/** The variables of `migrate`. */
export const migrateSchema = z.object({
  ...postgresVariables,
  OPENFGA_PROGRAM: z.string().min(1).default('openfga').describe('the program of OpenFGA'),
});

/** Configuration of `migrate`. */
export type MigrateConfig = z.output<typeof migrateSchema>;

/**
 * Brings OpenFGA's database to the schema of its program, one run at a time. OpenFGA records each step, so a killed run
 * is continued by the next; an index that was being built when it was killed stays behind invalid, and a later step
 * would take it for whole: it is dropped first, and the step that builds it is done again.
 */
export async function migrateOpenFga(config: MigrateConfig, log: Logger): Promise<void> {
  const credential = async (name: string) => (await readFile(join(config.PG_CREDENTIALS_DIR, name), 'utf8')).trim();
  const credentials = { username: await credential('username'), password: await credential('password') };
  const server = { host: config.PGHOST, port: config.PGPORT, ca: await readFile(config.PG_CA_FILE, 'utf8') };
  await withConnection(server, config.PGDATABASE, credentials, 120, (client) =>
    withLock(client, 'somagent/openfga', async () => {
      const { rows } = await client.query<{ name: string }>(
        `select indexrelid::regclass::text as name from pg_index i join pg_class c on c.oid = i.indexrelid
         join pg_namespace n on n.oid = c.relnamespace where not indisvalid and n.nspname = 'public'`,
      );
      for (const { name } of rows) {
        log.warn({ index: name }, 'an index was left half built: it is built again');
        await client.query(`drop index ${name}`);
      }
      await run(config, credentials);
    }),
  );
  log.info('the database of OpenFGA has the schema of its program');
}

async function run(
  config: MigrateConfig,
  { username, password }: { readonly username: string; readonly password: string },
): Promise<void> {
  const address = `${config.PGHOST}:${config.PGPORT}/${config.PGDATABASE}`;
  const child = spawn(config.OPENFGA_PROGRAM, ['migrate'], {
    stdio: 'inherit',
    env: {
      PATH: process.env.PATH,
      OPENFGA_DATASTORE_ENGINE: 'postgres',
      OPENFGA_DATASTORE_URI: `postgres://${address}?sslmode=verify-full&sslrootcert=${config.PG_CA_FILE}`,
      OPENFGA_DATASTORE_USERNAME: username,
      OPENFGA_DATASTORE_PASSWORD: password,
      OPENFGA_LOG_FORMAT: 'json',
    },
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  if (code !== 0) throw new Error(`openfga migrate ended with ${code}: its lines above say why`);
}
