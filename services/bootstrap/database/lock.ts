import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { log } from '../log.ts';

const pollMs = 200;

/**
 * Runs work while this session holds an advisory lock; the lock dies with the connection.
 * It polls instead of blocking: a session that blocks inside `pg_advisory_lock` holds a snapshot, and
 * `CREATE INDEX CONCURRENTLY` of the lock's owner waits for all snapshots: both would wait for ever.
 */
export async function withLock<T>(client: pg.Client, key: string, work: () => Promise<T>): Promise<T> {
  for (let reported = false; ; ) {
    const { rows } = await client.query<{ locked: boolean }>(
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS locked',
      [key],
    );
    if (rows[0]?.locked === true) break;
    if (!reported) log.info('another run holds the lock, waiting for it', { lock: key });
    reported = true;
    await sleep(pollMs);
  }
  try {
    return await work();
  } finally {
    await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [key]).catch(() => undefined);
  }
}
