import { appendEvents, type OutboxEvent, outboxInsert, type TenantDatabase } from '@somagent/kit';
import { sql } from 'kysely';
import {
  type EndInput,
  endNoticeOf,
  eventChannel,
  type FinishInput,
  type SessionInput,
  type Timings,
  type Turn,
  type TurnInput,
} from './contract.ts';
import { type Database, ofTenant } from './database.ts';
import { closedEvents, endedEvents, openedEvents } from './session-events.ts';

/** A session of a tenant. */
export interface SessionKey {
  readonly tenant: string;
  readonly sessionId: string;
}

/** A newer attempt at the same turn has begun: whoever gets this must stop writing. */
export class Superseded extends Error {
  constructor(turnId: string, attempt: number) {
    super(`attempt ${attempt} at turn ${turnId} is no longer the newest`);
    this.name = 'Superseded';
  }
}

/** Columns of a turn that make a {@link Turn}. */
export const turnColumns = ['id', 'number', 'prompt', 'answer', 'status', 'error', 'usage', 'timings'] as const;

/** A turn whose attempt has begun, and what the model may read of the conversation before it. */
export interface BegunTurn {
  /** One that is not `running` has ended before and must not run again. */
  readonly turn: Turn;
  /** Attempts that have begun, this one included, without those that a halt stopped. */
  readonly tries: number;
  /** Answered turns, oldest first. */
  readonly history: readonly Pick<Turn, 'prompt' | 'answer'>[];
}

/** An attempt at a turn. */
export interface Attempt {
  readonly turn: TurnInput;
  /** Of the activity: higher than that of every attempt before. */
  readonly number: number;
  /** The most answered turns that are returned, the newest. */
  readonly historyTurns: number;
  /** What the rest of the platform shall learn if the attempt begins. */
  readonly events: readonly OutboxEvent[];
}

/**
 * Everything that the orchestrator writes. Each method is one statement, hence one transaction and one round trip, and
 * safe to repeat; the events that it owes the rest of the platform are part of it. The counter in the session's row gives the numbers of events; its row lock is held until the commit,
 * so a reader never sees a number before all the lower ones.
 */
export class SessionStore {
  readonly #db: TenantDatabase<Database>;

  constructor(db: TenantDatabase<Database>) {
    this.#db = db;
  }

  /** Stores the session unless it is there. */
  async open(input: SessionInput): Promise<void> {
    await sql`
      with opened as (
        insert into session (tenant, id, subject, teams, persona, status, last_seq)
        values (${input.tenant}, ${input.sessionId}, ${input.subject}, ${[...(input.teams ?? [])]}, ${input.persona ?? null},
          'open', 1)
        on conflict (tenant, id) do nothing
        returning tenant, id, last_seq
      ), event as (
        insert into session_event (tenant, session_id, seq, type, data)
        select tenant, id, last_seq, 'session.opened', '{}' from opened returning seq
      ), outgoing as (${outboxInsert(openedEvents(input), sql`exists (select 1 from opened)`)})
      select ${notice(input)} from event`.execute(this.#db.of(input.tenant));
  }

  /** Stores that an attempt at a turn begins, and fences off older attempts. */
  async beginTurn(key: SessionKey, { turn, number, historyTurns, events }: Attempt): Promise<BegunTurn> {
    const begins = sql`exists (select 1 from begun where status = 'running')`;
    const { rows } = await sql<BegunRow>`
      with ${locked(key)}, begun as (
        insert into turn (tenant, session_id, id, number, prompt, answer, status, attempt, tries)
        select tenant, id, ${turn.turnId}::uuid, ${nextNumber(key)}, ${turn.prompt}::text, '', 'running',
          ${number}::integer, 1
        from locked
        on conflict (tenant, session_id, id) do update
        set attempt = greatest(turn.attempt, excluded.attempt),
          tries = turn.tries + (excluded.attempt > turn.attempt)::integer
        returning ${columns}, tries, halts
      ), counter as (
        update session set last_seq = last_seq + 1
        where ${isSession(key)} and ${begins}
        returning last_seq
      ), event as (
        insert into session_event (tenant, session_id, seq, type, turn_id, data)
        select ${key.tenant}::text, ${key.sessionId}::uuid, last_seq,
          case when tries = 1 then 'turn.started' else 'turn.restarted' end, begun.id,
          jsonb_build_object('number', number, 'prompt', prompt, 'attempt', tries)
        from counter, begun returning seq
      ), outgoing as (${outboxInsert(events, begins)}), earlier as (
        select number, prompt, answer from turn
        where tenant = ${key.tenant} and session_id = ${key.sessionId} and status = 'completed'
        order by number desc limit ${historyTurns}
      )
      select begun.*, (select ${notice(key)} from event),
        (select jsonb_agg(jsonb_build_object('prompt', prompt, 'answer', answer) order by number) from earlier) as history
      from begun`.execute(this.#db.of(key.tenant));
    const [row] = rows;
    if (row === undefined) throw missing(key);
    return { turn: turnOf(row), tries: row.tries - row.halts, history: row.history ?? [] };
  }

  /**
   * Appends generated text.
   * @returns whether the generation shall stop.
   * @throws Superseded when a newer attempt has begun or the turn has ended.
   */
  async appendText(key: SessionKey, turnId: string, attempt: number, text: string): Promise<boolean> {
    const { rows } = await sql<{ interrupted: boolean }>`
      with writer as (
        select interrupted from turn
        where tenant = ${key.tenant} and session_id = ${key.sessionId} and id = ${turnId}
          and attempt = ${attempt} and status = 'running'
      ), counter as (
        update session set last_seq = last_seq + 1
        where tenant = ${key.tenant} and id = ${key.sessionId} and exists (select 1 from writer)
        returning last_seq
      ), event as (
        insert into session_event (tenant, session_id, seq, type, turn_id, data)
        select ${key.tenant}, ${key.sessionId}, last_seq, 'turn.token', ${turnId}::uuid,
          jsonb_build_object('text', ${text}::text)
        from counter returning seq
      )
      select interrupted, ${notice(key)} from event, writer`.execute(this.#db.of(key.tenant));
    const [row] = rows;
    if (row === undefined) throw new Superseded(turnId, attempt);
    return row.interrupted;
  }

  /** Notes that a halt stopped the newest attempt at a turn: it does not count as a failed one. */
  async noteHalt(key: SessionKey, turnId: string, attempt: number): Promise<void> {
    await sql`
      update turn set halts = halts + 1
      where tenant = ${key.tenant} and session_id = ${key.sessionId} and id = ${turnId} and attempt = ${attempt}`.execute(
      this.#db.of(key.tenant),
    );
  }

  /** Stores events by themselves: of what was refused, nothing else is written. */
  async record(tenant: string | null, events: readonly OutboxEvent[]): Promise<void> {
    await appendEvents(tenant === null ? this.#db.untenanted : this.#db.of(tenant), events);
  }

  /** Asks the generation of a turn to stop; its next append tells it so. */
  async interrupt(key: SessionKey, turnId: string): Promise<void> {
    await this.#db
      .of(key.tenant)
      .updateTable('turn')
      .set({ interrupted: true })
      .where(ofTenant(key.tenant))
      .where('session_id', '=', key.sessionId)
      .where('id', '=', turnId)
      .execute();
  }

  /**
   * Stores the end of a turn together with the last of its text; a turn that has ended keeps its first end. One that
   * was cancelled while it waited has no row yet.
   * @throws Superseded when a newer attempt than that of the input has begun
   */
  async finishTurn(input: FinishInput): Promise<Turn> {
    const { generation, status, error, turn } = input;
    const tail = generation?.tail ?? '';
    const timings = timingsOf(input, Date.now());
    const { rows } = await sql<Turn>`
      with ${locked(input)}, ended as (
        insert into turn (tenant, session_id, id, number, prompt, answer, status, error, attempt, usage, timings, completed_at)
        select tenant, id, ${turn.turnId}::uuid, ${nextNumber(input)}, ${turn.prompt}::text,
          ${generation?.answer ?? ''}::text, ${status}::text, ${error}::text, 0, ${jsonOf(generation?.usage ?? null)},
          ${jsonOf(timings)}, clock_timestamp()
        from locked
        on conflict (tenant, session_id, id) do update
        set answer = excluded.answer, status = excluded.status, error = excluded.error, usage = excluded.usage,
          timings = excluded.timings, completed_at = excluded.completed_at
        where turn.status = 'running' and turn.attempt <= coalesce(${input.attempt ?? null}::integer, turn.attempt)
        returning ${columns}
      ), news as (
        select 1 as place, 'turn.token' as type, jsonb_build_object('text', ${tail}::text) as data
        from ended where ${tail}::text <> ''
        union all select 2, ${`turn.${status}`}::text, to_jsonb(ended) from ended
      ), counter as (
        update session set last_seq = last_seq + (select count(*) from news)
        where ${isSession(input)} and exists (select 1 from ended)
        returning last_seq
      ), event as (
        insert into session_event (tenant, session_id, seq, type, turn_id, data)
        select ${input.tenant}::text, ${input.sessionId}::uuid, last_seq - 2 + place, type, ${turn.turnId}::uuid, data
        from counter, news order by place returning seq
      ), outgoing as (${outboxInsert(endedEvents(input, timings), sql`exists (select 1 from ended)`)})
      select ended.*, ${notice(input, sql`last_seq`)}, pg_notify(${eventChannel}, ${endNoticeOf({ ...input, turnId: turn.turnId })})
      from ended, counter`.execute(this.#db.of(input.tenant));
    const [row] = rows;
    if (row !== undefined) return turnOf(row);
    const ended = await this.#ended(input, turn.turnId);
    if (ended.status === 'running') throw new Superseded(turn.turnId, input.attempt ?? 0);
    return ended;
  }

  /** Stores that the session has ended, once. */
  async close(input: EndInput): Promise<void> {
    await sql`
      with closed as (
        update session
        set status = 'closed', close_reason = ${input.reason}, closed_at = clock_timestamp(), last_seq = last_seq + 1
        where ${isSession(input)} and status = 'open'
        returning tenant, id, last_seq
      ), event as (
        insert into session_event (tenant, session_id, seq, type, data)
        select tenant, id, last_seq, 'session.closed', jsonb_build_object('reason', ${input.reason}::text)
        from closed returning seq
      ), outgoing as (${outboxInsert(closedEvents(input), sql`exists (select 1 from closed)`)})
      select ${notice(input)} from event`.execute(this.#db.of(input.tenant));
  }

  /** A turn as it is stored; undefined when there is none of that id. */
  turn(key: SessionKey, turnId: string): Promise<Turn | undefined> {
    return this.#db
      .of(key.tenant)
      .selectFrom('turn')
      .select(turnColumns)
      .where(ofTenant(key.tenant))
      .where('session_id', '=', key.sessionId)
      .where('id', '=', turnId)
      .executeTakeFirst();
  }

  /** The turn as it ended before. */
  async #ended(key: SessionKey, turnId: string): Promise<Turn> {
    const turn = await this.turn(key, turnId);
    if (turn === undefined) throw missing(key);
    return turn;
  }
}

interface BegunRow extends Turn {
  readonly tries: number;
  readonly halts: number;
  readonly history: BegunTurn['history'] | null;
}

/** Where the time of a turn went; `now` is when its answer is stored. */
export function timingsOf(input: Pick<FinishInput, 'turn' | 'generation'>, now: number): Timings {
  const { turn, generation } = input;
  const total = Math.max(0, now - turn.receivedAt);
  const model = generation?.model ?? 0;
  return {
    queue: Math.max(0, (generation?.startedAt ?? now) - turn.receivedAt),
    firstToken: generation?.firstToken ?? null,
    model,
    platform: Math.max(0, Math.round((total - model) * 10) / 10),
    total,
  };
}

/** jsonb wants text: the driver would turn an array or null into something else. */
const jsonOf = (value: object | null) => sql`${value === null ? null : JSON.stringify(value)}::jsonb`;

const missing = ({ sessionId }: SessionKey) => new Error(`session ${sessionId} is not in the database`);

/** A row holds more than the turn. */
const turnOf = (row: Turn): Turn => {
  const { id, number, prompt, answer, status, error, usage, timings } = row;
  return { id, number, prompt, answer, status, error, usage, timings };
};

const columns = sql.join(turnColumns.map((column) => sql.ref(column)));

const isSession = ({ tenant, sessionId }: SessionKey) => sql`tenant = ${tenant} and id = ${sessionId}`;

/** The session's row under the lock under which the numbers of its turns are given. */
const locked = (key: SessionKey) => sql`locked as (
  select tenant, id from session where ${isSession(key)} for update
)`;

const nextNumber = ({ tenant, sessionId }: SessionKey) => sql`(
  select coalesce(max(number), 0) + 1 from turn where tenant = ${tenant} and session_id = ${sessionId}
)`;

/** Announces the event with that number to the gateways, when the transaction commits. */
const notice = ({ tenant, sessionId }: SessionKey, seq = sql`seq`) =>
  sql`pg_notify(${eventChannel}, ${`${tenant}/${sessionId}/`} || ${seq})`;
