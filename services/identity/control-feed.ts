import {
  type ControlSnapshot,
  ControlView,
  connectionSettings,
  type Logger,
  type PostgresConfig,
  reasonOf,
} from '@somagent/kit';
import { sql } from 'kysely';
import pg from 'pg';
import type { Database } from './database.ts';
import { controlChannel } from './ledger.ts';

/** Options of {@link ControlFeed}. */
export interface ControlFeedOptions {
  readonly db: Database;
  /** Where to listen: a connection of its own, because a pool would lose it. */
  readonly postgres: PostgresConfig;
  readonly log: Logger;
  /** Time between questions whether a notice was lost, milliseconds. @default 1000 */
  readonly interval?: number;
}

/** Time for one question before the connection counts as lost, milliseconds. */
const patience = 1000;

/**
 * The control state on this replica. It hears of each change by NOTIFY, and asks every second whether it missed one:
 * a state that the database has not confirmed lately is called stale, and nobody is told that it is current.
 */
export class ControlFeed {
  readonly #options: ControlFeedOptions;
  readonly #waiters = new Set<() => void>();
  #view: ControlView | undefined;
  #client: pg.Client | undefined;
  #confirmedAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ControlFeedOptions) {
    this.#options = options;
  }

  /** Whether a state is known at all. */
  get ready(): boolean {
    return this.#view !== undefined;
  }

  /** The state as last read. @throws Error before the first. */
  get view(): ControlView {
    if (this.#view !== undefined) return this.#view;
    throw new Error('the control state has not been read yet');
  }

  /** Whether the database has confirmed the state a moment ago. */
  get fresh(): boolean {
    const { interval = 1000 } = this.#options;
    return this.ready && performance.now() - this.#confirmedAt < interval + patience;
  }

  /** Connects, and connects again whenever the connection is lost. */
  async start(): Promise<void> {
    if (this.#stopped) return;
    const { log, interval = 1000 } = this.#options;
    try {
      this.#client = await this.#connect();
      await this.#refresh();
    } catch (error) {
      log.warn({ reason: reasonOf(error) }, 'the control state cannot be read');
      void this.#client?.end().catch(() => undefined);
      this.#client = undefined;
    }
    const next = this.#client === undefined ? () => this.start() : () => this.#confirm();
    this.#schedule(next, this.#client === undefined ? 200 : interval);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    for (const wake of this.#waiters) wake();
    await this.#client?.end().catch(() => undefined);
  }

  /** Reads the state now. Never rejects: what can't be read is read again later, and is stale until then. */
  async refresh(): Promise<void> {
    await this.#refresh().catch((error: unknown) =>
      this.#options.log.warn({ reason: reasonOf(error) }, 'the control state cannot be read'),
    );
  }

  /** Resolves at the next change, after `timeout` milliseconds, or when the signal aborts. */
  next(timeout: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, timeout);
      this.#waiters.add(done);
      signal.addEventListener('abort', done, { once: true });
      if (signal.aborted || this.#stopped) done();
    });
  }

  #schedule(work: () => Promise<void>, delay: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void work(), delay);
    this.#timer.unref();
  }

  async #connect(): Promise<pg.Client> {
    const { log, postgres } = this.#options;
    const client = new pg.Client({ ...connectionSettings(postgres), query_timeout: patience });
    client.on('error', (error) => log.warn({ reason: error.message }, 'the connection of the control feed was lost'));
    client.on('notification', () => void this.#refresh().catch((error: unknown) => this.#lost(error)));
    try {
      await client.connect();
      await client.query(`listen ${controlChannel}`);
      return client;
    } catch (error) {
      void client.end().catch(() => undefined);
      throw error;
    }
  }

  /** One question that shows both that the connection lives and whether a notice was lost. */
  async #confirm(): Promise<void> {
    const { interval = 1000 } = this.#options;
    try {
      const asked = performance.now();
      const { rows } = await (this.#client ?? raise()).query<{ revision: string }>('select revision from control');
      if (Number(rows[0]?.revision) === this.view.snapshot.revision) this.#confirmedAt = asked;
      else await this.#refresh();
      this.#schedule(() => this.#confirm(), interval);
    } catch (error) {
      this.#lost(error);
      await this.start();
    }
  }

  #lost(error: unknown): void {
    this.#options.log.warn({ reason: reasonOf(error) }, 'the control state cannot be confirmed');
    const client = this.#client;
    this.#client = undefined;
    void client?.end().catch(() => undefined);
  }

  /** Reads one after the other: an older answer must not come after a newer one. */
  #refresh(): Promise<void> {
    const read = this.#reading.then(() => this.#read());
    this.#reading = read.catch(() => undefined);
    return read;
  }

  async #read(): Promise<void> {
    const asked = performance.now();
    const snapshot = await readSnapshot(this.#options.db);
    this.#confirmedAt = asked;
    if (this.#view !== undefined && snapshot.revision === this.#view.snapshot.revision) return;
    this.#view = new ControlView(snapshot);
    for (const wake of [...this.#waiters]) wake();
  }
}

function raise(): never {
  throw new Error('the connection was lost');
}

/** The whole control state, of one moment: a single statement sees a single state of the database. */
export async function readSnapshot(db: Database): Promise<ControlSnapshot> {
  const revoked = (kind: string) => sql`
    coalesce((select json_agg(id order by id) from revocation
      where kind = ${sql.lit(kind)} and expires_at > clock_timestamp()), '[]')`;
  const tenants = (condition: string) => sql`
    coalesce((select json_agg(tenant order by tenant) from tenant where ${sql.raw(condition)}), '[]')`;
  const { rows } = await sql<{ snapshot: ControlSnapshot }>`
    select json_build_object(
      'revision', revision,
      'halted', json_build_object('all', halted, 'tenants', ${tenants('halted')}),
      'suspended', json_build_object(
        'tenants', ${tenants("standing = 'suspended'")},
        'users', coalesce((select json_agg(tenant || '/' || id order by tenant, id) from account
          where standing = 'suspended'), '[]')),
      'revoked', json_build_object(
        'sessions', ${revoked('session')}, 'tokens', ${revoked('token')}, 'keys', ${revoked('key')}),
      'training', json_build_object('unlocked', ${tenants("training = 'unlocked'")})
    ) as snapshot
    from control`.execute(db.platform);
  const [row] = rows;
  if (row === undefined) throw new Error('table control is empty: run the migrations');
  return row.snapshot;
}
