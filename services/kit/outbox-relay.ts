import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { KafkaError, type MessageSink, type OutgoingMessage } from './kafka.ts';
import { type Logger, messageOf } from './log.ts';
import { outboxChannel, outboxLocks } from './outbox.ts';
import { connectionSettings, type PostgresConfig } from './postgres.ts';

/** Options of {@link OutboxRelay}. */
export interface OutboxRelayOptions {
  /** Where the table `outbox` is. The relay keeps a connection of its own, besides every pool. */
  readonly database: PostgresConfig;
  readonly sink: MessageSink;
  readonly log: Logger;
  /** The most events that are read at once. @default 1000 */
  readonly batch?: number;
}

/** What a relay knows of itself, without asking anybody. */
export interface RelayStatus {
  /** Whether this process is the one that relays. */
  readonly leader: boolean;
  /** Events that this process has relayed. */
  readonly relayed: number;
  /** Topics that Kafka refuses at the moment, with the reason. */
  readonly held: Readonly<Record<string, string>>;
}

/** What waits in the outbox. */
export interface Backlog {
  /** Events; the count stops at {@link backlogLimit}. */
  readonly events: number;
  /** Age of the oldest one, milliseconds. */
  readonly oldest: number;
}

/** A backlog is counted up to here: the count of a long one would take longer than to relay it. */
export const backlogLimit = 100_000;

interface Row {
  readonly seq: string;
  readonly topic: string;
  readonly key: string;
  readonly value: string;
  readonly headers: Record<string, string>;
}

interface Hold {
  readonly reason: string;
  readonly until: number;
  readonly pause: number;
}

/** What is read at once, bytes of the values: with `batch` it bounds the memory of a relay. */
const batchBytes = 1024 * 1024;
const times = {
  /**
   * From the first event to the look that takes it, and between two looks that find nothing: what comes meanwhile goes
   * along, in one read, one request to Kafka for each topic, and one delete.
   */
  gather: 50,
  /** A sleeping relay looks by itself, too: a NOTIFY may be lost with a connection. */
  doze: 2000,
  /** Between two attempts to become the leader. */
  candidacy: 500,
  /** Pauses of a topic that Kafka refuses: they double. */
  hold: 200,
  longestHold: 5000,
  reconnect: 500,
  /** What a relay that is stopped waits for Kafka. */
  grace: 3000,
};

/** Topics that have events, found by one probe of the index each. */
const topicsSql = `
  with recursive topics as (
    (select topic from outbox order by topic limit 1)
    union all
    select (select topic from outbox where topic > topics.topic order by topic limit 1) from topics
    where topics.topic is not null
  )
  select topic from topics where topic is not null and topic <> all ($1::text[])`;

/**
 * The oldest events of each topic, up to $2 events and $3 bytes. The columns come as text: what Postgres wrote is what
 * is sent.
 */
const readSql = `
  select seq, topic, key, value, headers from (
    select *, sum(octet_length(value)) over (order by seq) - octet_length(value) as bytes_before from (
      select seq, oldest.topic, key, value::text, headers
      from (${topicsSql}) waiting
      cross join lateral (select * from outbox where outbox.topic = waiting.topic order by seq limit $2) oldest
      order by seq limit $2
    ) candidates
  ) measured where bytes_before < $3 order by seq`;

const deleteSql = `
  delete from outbox using unnest($1::text[], $2::bigint[]) as done (topic, seq)
  where outbox.topic = done.topic and outbox.seq = done.seq`;

const backlogSql = `
  select (select count(*) from (select 1 from outbox limit ${backlogLimit}) counted)::integer as events,
    coalesce((select extract(epoch from clock_timestamp() - min(created_at)) * 1000
      from (select created_at from outbox order by id limit 1) first), 0)::float as oldest`;

/**
 * Brings events from the table `outbox` to Kafka, at least once and in the order of each key. Any number may run on one
 * database: an advisory lock makes one of them the leader, and another takes over when its connection ends. An event
 * is deleted after Kafka has acknowledged it. A topic that Kafka refuses holds up only itself.
 */
export class OutboxRelay {
  readonly #options: OutboxRelayOptions;
  readonly #batch: number;
  readonly #stop = new AbortController();
  readonly #holds = new Map<string, Hold>();
  #running: Promise<void> | undefined;
  #client: pg.Client | undefined;
  #wake = Promise.withResolvers<void>();
  #leader = false;
  #relayed = 0;

  constructor(options: OutboxRelayOptions) {
    this.#options = options;
    this.#batch = options.batch ?? 1000;
  }

  /** What this relay does. */
  get status(): RelayStatus {
    const held = Object.fromEntries([...this.#holds].map(([topic, { reason }]) => [topic, reason]));
    return { leader: this.#leader, relayed: this.#relayed, held };
  }

  /** Begins; errors are logged and tried again. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends after the batch under way, or after a short grace without it; what is not acknowledged stays in the table. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake.resolve();
    const grace = new AbortController();
    await Promise.race([this.#running, sleep(times.grace, undefined, { signal: grace.signal }).catch(() => undefined)]);
    grace.abort();
    // Kafka does not answer: the lock must not outlive this relay.
    await this.#client?.end();
  }

  /**
   * What waits, whoever relays it.
   * @param db anything that runs a query: a pool of the service
   */
  static async backlog(db: Pick<pg.Pool, 'query'>): Promise<Backlog> {
    const { rows } = await db.query<Backlog>(backlogSql);
    const [row] = rows;
    if (row === undefined) throw new Error('Postgres gave no row for the backlog');
    return row;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#session();
      } catch (error) {
        if (!this.#stopped)
          this.#options.log.warn({ err: error }, 'the relay of the outbox lost Postgres, tries again');
      }
      this.#leader = false;
      await this.#pause(times.reconnect);
    }
  }

  get #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** One connection to Postgres, until it breaks or the relay stops. */
  async #session(): Promise<void> {
    const client = new pg.Client({ ...connectionSettings(this.#options.database), application_name: 'outbox relay' });
    client.on('error', () => this.#wake.resolve());
    client.on('notification', () => this.#wake.resolve());
    await client.connect();
    this.#client = client;
    try {
      await client.query(sessionSql);
      await this.#becomeLeader(client);
      while (!this.#stopped) await this.#step(client);
    } finally {
      this.#client = undefined;
      await client.end().catch(() => undefined);
    }
  }

  async #becomeLeader(client: pg.Client): Promise<void> {
    while (!this.#stopped && !(await tryLock(client, outboxLocks.leader))) await this.#pause(times.candidacy);
    if (this.#stopped) return;
    this.#leader = true;
    this.#options.log.info('this process relays the outbox');
  }

  /** Relays what is there, or waits until there is something. */
  async #step(client: pg.Client): Promise<void> {
    const rows = await this.#read(client);
    if (rows.length > 0) {
      const gone = await this.#publish(rows);
      if (gone.length > 0) await client.query(deleteSql, [gone.map(({ topic }) => topic), gone.map(({ seq }) => seq)]);
      this.#relayed += gone.length;
      if (isAll(rows, this.#batch)) await this.#pause(times.gather);
      return;
    }
    if (this.#holds.size > 0) return this.#pause(times.hold);
    await this.#doze(client);
  }

  async #read(client: pg.Client): Promise<readonly Row[]> {
    const now = Date.now();
    const held = [...this.#holds].filter(([, { until }]) => until > now).map(([topic]) => topic);
    const { rows } = await client.query<Row>(readSql, [held, this.#batch, batchBytes]);
    return rows;
  }

  /** Sends each topic by itself. @returns the events that Kafka has acknowledged */
  async #publish(rows: readonly Row[]): Promise<readonly Row[]> {
    const byTopic = Map.groupBy(rows, ({ topic }) => topic);
    const sent = [...byTopic].map(async ([topic, events]) => ((await this.#send(topic, events)) ? events : []));
    return (await Promise.all(sent)).flat();
  }

  async #send(topic: string, events: readonly Row[]): Promise<boolean> {
    try {
      await this.#options.sink.send(events as readonly OutgoingMessage[]);
      if (this.#holds.delete(topic)) this.#options.log.info({ topic }, 'Kafka takes the topic again');
      return true;
    } catch (error) {
      this.#hold(topic, error);
      return false;
    }
  }

  #hold(topic: string, error: unknown): void {
    const before = this.#holds.get(topic);
    const pause = Math.min((before?.pause ?? times.hold / 2) * 2, times.longestHold);
    const reason = error instanceof KafkaError ? error.reason : messageOf(error);
    this.#holds.set(topic, { reason, pause, until: Date.now() + pause });
    if (before?.reason !== reason)
      this.#options.log.error({ topic, err: error }, 'Kafka refuses a topic, its events wait');
  }

  /** Sleeps until a writer wakes it, unless one is at work right now: then it looks again soon. */
  async #doze(client: pg.Client): Promise<void> {
    if (!(await tryLock(client, outboxLocks.asleep))) return this.#pause(times.gather);
    try {
      // A writer that ended between the look and the lock has not notified.
      if ((await this.#read(client)).length === 0) await this.#pause(times.doze);
    } finally {
      await client.query('select pg_advisory_unlock($1, $2)', [outboxLocks.space, outboxLocks.asleep]);
    }
    await this.#pause(times.gather);
  }

  async #pause(milliseconds: number): Promise<void> {
    if (this.#stopped) return;
    const timer = new AbortController();
    await Promise.race([
      sleep(milliseconds, undefined, { signal: timer.signal }).catch(() => undefined),
      this.#wake.promise,
    ]);
    timer.abort();
    this.#wake = Promise.withResolvers<void>();
  }
}

/**
 * The deletes need not be durable, since an event that comes back is recognized by its id; the lock of a leader whose
 * node vanished is freed after some ten seconds; a plan must never read the whole table, however old its statistics.
 */
const sessionSql = `
  set synchronous_commit = off;
  set enable_seqscan = off;
  set statement_timeout = 30000;
  set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3;
  listen ${outboxChannel}`;

/** Whether a read was bounded neither by events nor by bytes: nothing more was there. */
function isAll(rows: readonly Row[], batch: number): boolean {
  const bytes = rows.reduce((sum, { value }) => sum + value.length, 0);
  return rows.length < batch && bytes < batchBytes / 2;
}

async function tryLock(client: pg.Client, lock: number): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>('select pg_try_advisory_lock($1, $2) as locked', [
    outboxLocks.space,
    lock,
  ]);
  return rows[0]?.locked ?? false;
}
