import { createPool, type Logger, TenantDatabase } from '@somagent/kit';
import type { MigrateConfig } from './config.ts';
import { migrate } from './log/migrations.ts';

/** Brings the schema to its newest version, as the owner of the database. */
export async function migrateDatabase(config: MigrateConfig, log: Logger): Promise<void> {
  const db = new TenantDatabase<object>(createPool(config, log));
  try {
    const applied = await migrate(db.untenanted, config.AUDIT_ROLE);
    log.info({ applied: applied.map(({ migrationName }) => migrationName) }, 'the schema is at its newest version');
  } finally {
    await db.destroy();
  }
}
