import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '@somagent/kit';
import { eventTables, retentionDays } from './migrations.ts';
import { database, type Warehouse } from './warehouse.ts';

const dayMs = 24 * 3600 * 1000;
const dayPattern = /^\d{4}-\d{2}-\d{2}$/;

/** A partition that was dropped. */
export interface Dropped {
  readonly table: string;
  /** `2026-10-01`. */
  readonly day: string;
}

interface Partition {
  readonly table: string;
  readonly day: string;
}

/** Days that end before everything kept begins: the first kept moment is `retentionDays` ago. */
const firstKept = (now: Date) => new Date(now.getTime() - retentionDays * dayMs).toISOString().slice(0, 10);

/**
 * Drops every day that is older than the retention, at once instead of whenever the engine merges. Of the marks of
 * positions, days stay in which the newest one of some partition lies: reading goes on from there when its rows are gone.
 */
export async function sweep(warehouse: Warehouse, now = new Date()): Promise<readonly Dropped[]> {
  const partitions = await warehouse.rows<Partition>(
    `select distinct table, partition as day from system.parts
    where database = {database:String} and active and partition < {first:String}
      and table in {tables:Array(String)}`,
    { database, first: firstKept(now), tables: [...eventTables, 'cut', 'forecast', 'anomaly'] },
  );
  const needed = await daysOfPositions(warehouse);
  const old = partitions.filter(({ table, day }) => dayPattern.test(day) && !(table === 'cut' && needed.has(day)));
  for (const { table, day } of old) await warehouse.run(`alter table ${database}.${table} drop partition '${day}'`);
  return old;
}

async function daysOfPositions(warehouse: Warehouse): Promise<ReadonlySet<string>> {
  const rows = await warehouse.rows<{ day: string }>(
    `select distinct toString(toDate(argMax(at, first))) as day from ${database}.cut group by topic, partition`,
  );
  return new Set(rows.map(({ day }) => day));
}

/** Sweeps every hour until `signal` is aborted. */
export async function sweepAgain(warehouse: Warehouse, log: Logger, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      const dropped = await sweep(warehouse);
      if (dropped.length > 0) log.info({ dropped }, 'days beyond the retention were dropped');
    } catch (error) {
      log.warn({ err: error }, 'the retention could not be kept this time');
    }
    await sleep(3600_000, undefined, { signal }).catch(() => undefined);
  }
}
