import { quotaMigration } from '@somagent/governance/quota-migration.ts';
import { outboxMigration } from '@somagent/kit/outbox.ts';
import type { Kysely } from 'kysely';
import { type MigrationResult, Migrator } from 'kysely/migration';

/** What the service keeps in Postgres: leases of limits, and verdicts that Kafka does not take. Never changed once released. */
const migrations = { '0001_outbox': outboxMigration, '0002_quota': quotaMigration };

/** Brings the database `analytics` to its newest version. @returns what ran now */
export async function migratePostgres<Tables>(db: Kysely<Tables>): Promise<readonly MigrationResult[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
  const { error, results } = await migrator.migrateToLatest();
  if (error) throw error;
  return results ?? [];
}
