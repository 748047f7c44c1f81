import { isolateTenants } from '@somagent/kit';
import { type Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';

/** How much of a limit is given out in its window. */
export interface QuotaWindowTable {
  tenant: string;
  limit_name: string;
  /** Empty where the limit is the whole tenant's. */
  subject: string;
  window_start: Date;
  /** The limit when the last block was leased. */
  allowed: string;
  /** Requests leased in this window, used or not. */
  granted: string;
  /** Size of the last block. */
  block: string;
}

/** Limits of single tenants, instead of the configured ones. */
export interface QuotaLimitTable {
  tenant: string;
  limit_name: string;
  /** Requests in a window. */
  allowed: string;
}

/** The tables of limits; part of the database of each service that counts requests. */
export interface QuotaTables {
  quota_window: QuotaWindowTable;
  quota_limit: QuotaLimitTable;
}

/** Creates {@link QuotaTables}; goes into the migrations of the service that owns the database. */
export const quotaMigration: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table quota_window (
        tenant text not null,
        limit_name text not null,
        subject text not null,
        window_start timestamptz not null,
        allowed bigint not null,
        granted bigint not null,
        block bigint not null,
        primary key (tenant, limit_name, subject)
      )`.execute(db);
    await sql`
      create table quota_limit (
        tenant text not null,
        limit_name text not null,
        allowed bigint not null check (allowed >= 0),
        primary key (tenant, limit_name)
      )`.execute(db);
    await isolateTenants(db, 'quota_window');
    await isolateTenants(db, 'quota_limit');
  },
};
