import { type Kysely, type QueryExecutorProvider, type RawBuilder, sql } from 'kysely';
import type { Migration } from 'kysely/migration';

/** An event as it goes into the outbox; `event()` of `@somagent/events` makes one. */
export interface OutboxEvent {
  readonly topic: string;
  readonly key: string;
  /** The event itself; it is sent as JSON. */
  readonly value: { readonly id: string };
  readonly headers: Readonly<Record<string, string>>;
}

/** An event that can't go into the outbox. */
export class OutboxError extends Error {
  constructor(event: OutboxEvent, problem: string) {
    super(`event ${event.value.id} for ${event.topic}: ${problem}`);
    this.name = 'OutboxError';
  }
}

/** Kafka refuses a batch above 1 MiB; an event that it refuses would hold up its topic for ever. */
const largestEvent = 900_000;

/** Keys of the advisory locks: the first says that it is about an outbox, the second what. */
export const outboxLocks = { space: 0x6f757462, leader: 1, asleep: 2 } as const;

/** Channel on which a relay that sleeps is woken. */
export const outboxChannel = 'outbox';

/**
 * Creates the table `outbox`. Its trigger wakes the relay, but only one that sleeps: a NOTIFY takes a lock of the whole
 * server until its transaction is durable, so under load it would let one transaction commit at a time. A relay that
 * sleeps holds `asleep` exclusively; a writer that gets it shared knows that the relay is awake and looks again after
 * the writer's end, because the relay can't lock it as long as the writer runs.
 */
export const outboxMigration: Migration = {
  async up(db: Kysely<unknown>) {
    await sql`
      create table outbox (
        id uuid primary key,
        seq bigint generated always as identity,
        topic text not null,
        key text not null,
        value jsonb not null,
        headers jsonb not null,
        created_at timestamptz(3) not null default clock_timestamp()
      ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)`.execute(db);
    await sql`create unique index outbox_order on outbox (topic, seq)`.execute(db);
    await sql`
      create function outbox_wake() returns trigger language plpgsql as $$
      begin
        if not pg_try_advisory_xact_lock_shared(${sql.lit(outboxLocks.space)}, ${sql.lit(outboxLocks.asleep)}) then
          perform pg_notify(${sql.lit(outboxChannel)}, '');
        end if;
        return null;
      end $$`.execute(db);
    await sql`
      create trigger outbox_wake after insert on outbox
      for each statement execute function outbox_wake()`.execute(db);
  },
};

/**
 * The statement that stores events, to run alone or as a part of another one:
 *
 * ```ts
 * sql`with opened as (insert into session ... returning id),
 *   events as (${outboxInsert([event], sql`exists (select 1 from opened)`)})
 *   select ...`
 * ```
 *
 * Postgres runs a WITH that writes even if nothing reads it. Only the parameters are values; the order of `events` is
 * the order in which they are relayed, if the statement holds a lock that others with the same key wait for. An event
 * whose id is in the table already is left out.
 * @param when a condition without which nothing is stored, so that the event exists exactly if its action took place
 * @throws OutboxError for an event that Kafka would refuse.
 */
export function outboxInsert(
  events: readonly OutboxEvent[],
  when: RawBuilder<unknown> = sql`true`,
): RawBuilder<unknown> {
  const rows = events.map((event) => ({
    id: event.value.id,
    topic: event.topic,
    key: event.key,
    value: event.value,
    headers: event.headers,
  }));
  for (const event of events) refuseTooLarge(event);
  return sql`
    insert into outbox (id, topic, key, value, headers)
    select id, topic, key, value, headers
    from rows from (
      jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
        as (id uuid, topic text, key text, value jsonb, headers jsonb)
    ) with ordinality as event (id, topic, key, value, headers, place)
    where ${when}
    order by place
    on conflict (id) do nothing`;
}

function refuseTooLarge(event: OutboxEvent): void {
  const size = Buffer.byteLength(JSON.stringify(event.value));
  if (size <= largestEvent) return;
  throw new OutboxError(event, `${size} bytes, at most ${largestEvent} are allowed; store what is large and name it`);
}

/**
 * Stores events in the transaction of the action that they tell of: both or neither.
 * @param executor the transaction
 * @throws OutboxError for an event that Kafka would refuse.
 */
export async function appendEvents(executor: QueryExecutorProvider, events: readonly OutboxEvent[]): Promise<void> {
  if (events.length > 0) await outboxInsert(events).execute(executor);
}
