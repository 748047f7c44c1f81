import { type Kysely, sql, type Transaction } from 'kysely';
import {
  type CloseReason,
  type EventType,
  eventChannel,
  type FinishInput,
  type SessionInput,
  type Timings,
  type Turn,
  type TurnInput,
} from './contract.ts';
import { type Database, ofTenant } from './database.ts';

/** A session of a tenant. */
export interface SessionKey {
  readonly tenant: string;
  readonly sessionId: string;
}

/** An event before it has its sequence number. */
export interface NewEvent {
  readonly type: EventType;
  readonly turnId: string | null;
  readonly data: unknown;
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

type Connection = Kysely<Database> | Transaction<Database>;

/** Everything that the orchestrator writes. Each method is one transaction and safe to repeat. */
export class SessionStore {
  readonly #db: Kysely<Database>;

  constructor(db: Kysely<Database>) {
    this.#db = db;
  }

  /** Stores the session unless it is there. */
  async open(input: SessionInput): Promise<void> {
    await this.#db.transaction().execute(async (tx) => {
      const row = { tenant: input.tenant, id: input.sessionId, subject: input.subject };
      const inserted = await tx
        .insertInto('session')
        .values({ ...row, persona: input.persona ?? null, status: 'open' })
        .onConflict((conflict) => conflict.columns(['tenant', 'id']).doNothing())
        .executeTakeFirst();
      if (inserted.numInsertedOrUpdatedRows === 1n) {
        await append(tx, input, [{ type: 'session.opened', turnId: null, data: {} }]);
      }
    });
  }

  /**
   * Stores that an attempt at a turn begins, and fences off older attempts.
   * @returns the turn; one that is not `running` has ended before and must not run again.
   */
  async beginTurn(key: SessionKey, input: TurnInput, attempt: number): Promise<Turn> {
    return this.#db.transaction().execute(async (tx) => {
      await lock(tx, key);
      const turn = await this.#insertTurn(tx, key, input, attempt);
      if (turn.status !== 'running') return turn;
      const { id: turnId, number, prompt } = turn;
      const first = attempt === 1;
      const event = {
        type: first ? 'turn.started' : 'turn.restarted',
        turnId,
        data: { number, prompt, attempt },
      } as const;
      await append(tx, key, [event]);
      return turn;
    });
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
      select interrupted, pg_notify(${eventChannel}, ${`${key.tenant}/${key.sessionId}/`} || seq) from event, writer`.execute(
      this.#db,
    );
    const [row] = rows;
    if (row === undefined) throw new Superseded(turnId, attempt);
    return row.interrupted;
  }

  /** Asks the generation of a turn to stop; its next append tells it so. */
  async interrupt(key: SessionKey, turnId: string): Promise<void> {
    await this.#db
      .updateTable('turn')
      .set({ interrupted: true })
      .where(ofTenant(key.tenant))
      .where('session_id', '=', key.sessionId)
      .where('id', '=', turnId)
      .execute();
  }

  /** Turns that have been answered, oldest first, at most `limit` of the newest. */
  async answered(key: SessionKey, limit: number): Promise<Pick<Turn, 'prompt' | 'answer'>[]> {
    const rows = await this.#db
      .selectFrom('turn')
      .select(['prompt', 'answer'])
      .where(ofTenant(key.tenant))
      .where('session_id', '=', key.sessionId)
      .where('status', '=', 'completed')
      .orderBy('number', 'desc')
      .limit(limit)
      .execute();
    return rows.reverse();
  }

  /** Stores the end of a turn; a turn that has ended keeps its first end. */
  async finishTurn(input: FinishInput): Promise<Turn> {
    return this.#db.transaction().execute(async (tx) => {
      await lock(tx, input);
      const begun = await this.#insertTurn(tx, input, input.turn, 0);
      if (begun.status !== 'running') return begun;
      const { generation, status, error } = input;
      const turn = await tx
        .updateTable('turn')
        .set({
          status,
          error,
          answer: generation?.answer ?? '',
          usage: jsonOf(generation?.usage ?? null),
          timings: jsonOf(timingsOf(input, Date.now())),
          completed_at: new Date(),
        })
        .where(ofTenant(input.tenant))
        .where('session_id', '=', input.sessionId)
        .where('id', '=', input.turn.turnId)
        .returning(turnColumns)
        .executeTakeFirstOrThrow();
      await append(tx, input, [{ type: `turn.${status}`, turnId: turn.id, data: turn }]);
      return turn;
    });
  }

  /** Stores that the session has ended, once. */
  async close(key: SessionKey, reason: CloseReason): Promise<void> {
    await this.#db.transaction().execute(async (tx) => {
      const closed = await tx
        .updateTable('session')
        .set({ status: 'closed', close_reason: reason, closed_at: new Date() })
        .where(ofTenant(key.tenant))
        .where('id', '=', key.sessionId)
        .where('status', '=', 'open')
        .executeTakeFirst();
      if (closed.numUpdatedRows === 1n) {
        await append(tx, key, [{ type: 'session.closed', turnId: null, data: { reason } }]);
      }
    });
  }

  async #insertTurn(tx: Connection, key: SessionKey, input: TurnInput, attempt: number): Promise<Turn> {
    const { tenant, sessionId } = key;
    const newest = tx
      .selectFrom('turn')
      .select(({ fn, lit }) => sql<number>`coalesce(${fn.max('number')}, ${lit(0)}) + 1`.as('number'))
      .where(ofTenant(tenant))
      .where('session_id', '=', sessionId);
    return tx
      .insertInto('turn')
      .values({
        tenant,
        session_id: sessionId,
        id: input.turnId,
        number: newest,
        prompt: input.prompt,
        answer: '',
        status: 'running',
        attempt,
      })
      .onConflict((conflict) =>
        conflict
          .columns(['tenant', 'session_id', 'id'])
          .doUpdateSet({ attempt: sql<number>`greatest(turn.attempt, excluded.attempt)` }),
      )
      .returning(turnColumns)
      .executeTakeFirstOrThrow();
  }
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
const jsonOf = <Value>(value: Value) => (value === null ? null : sql<Value>`${JSON.stringify(value)}::jsonb`);

/** Takes the lock under which the numbers of turns and events of this session are given. */
async function lock(tx: Connection, key: SessionKey): Promise<void> {
  const row = await tx
    .selectFrom('session')
    .select('id')
    .where(ofTenant(key.tenant))
    .where('id', '=', key.sessionId)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) throw new Error(`session ${key.sessionId} is not in the database`);
}

/**
 * Appends events and announces them. The counter in the session's row gives the numbers; its row lock is held until
 * the commit, so a reader never sees a number before all the lower ones.
 */
async function append(tx: Connection, key: SessionKey, events: readonly NewEvent[]): Promise<void> {
  const { last_seq } = await tx
    .updateTable('session')
    .set({ last_seq: sql`last_seq + ${events.length}` })
    .where(ofTenant(key.tenant))
    .where('id', '=', key.sessionId)
    .returning('last_seq')
    .executeTakeFirstOrThrow();
  const before = Number(last_seq) - events.length;
  await tx
    .insertInto('session_event')
    .values(
      events.map(({ type, turnId, data }, index) => ({
        tenant: key.tenant,
        session_id: key.sessionId,
        seq: String(before + index + 1),
        type,
        turn_id: turnId,
        data: sql`${JSON.stringify(data)}::jsonb`,
      })),
    )
    .execute();
  await sql`select pg_notify(${eventChannel}, ${`${key.tenant}/${key.sessionId}/${last_seq}`})`.execute(tx);
}
