import {
  type Actor,
  type EventData,
  type EventType,
  event,
  type OutgoingEvent,
  type TopicName,
} from '@somagent/events';
import { appendEvents } from '@somagent/kit/outbox.ts';
import { sql, type Transaction } from 'kysely';
import type { Database, Tables } from './database.ts';

/** Who asks for a change, and by which request. */
export interface Origin {
  readonly actor: Actor;
  readonly requestId: string | null;
}

/** What the service does by itself. */
export const ownWork = (id: string): Origin => ({ actor: { kind: 'system', id, client: null }, requestId: null });

/** Channel on which every replica hears that the control state has a new revision. */
export const controlChannel = 'soma_control';

/** A change while its transaction is open. */
export class Change {
  readonly rows: Transaction<Tables>;
  readonly events: OutgoingEvent[] = [];
  readonly #tenant: string | null;
  readonly #origin: Origin;
  touchesControl = false;

  constructor(rows: Transaction<Tables>, tenant: string | null, origin: Origin) {
    this.rows = rows;
    this.#tenant = tenant;
    this.#origin = origin;
  }

  /** Adds an event, stored and sent with the change or not at all. */
  record<Topic extends TopicName, Type extends EventType<Topic>>(
    topic: Topic,
    type: Type,
    data: EventData<Topic, Type>,
  ): void {
    this.events.push(event(topic, type, { tenant: this.#tenant, ...this.#origin, data }));
  }

  /** Says that the change is part of the control state: every client of the feed hears of it at once. */
  control(): void {
    this.touchesControl = true;
  }
}

/**
 * The one way to change anything: rows, their events and the revision of the control state in one transaction, so that
 * no change is without its record.
 */
export class Ledger {
  readonly #db: Database;
  readonly #controlChanged: () => Promise<void>;

  /** @param controlChanged called after a change of the control state: who asked for it then finds it done here, too */
  constructor(db: Database, controlChanged: () => Promise<void> = async () => undefined) {
    this.#db = db;
    this.#controlChanged = controlChanged;
  }

  /**
   * Runs a change of one tenant; of the platform itself when the tenant is null.
   * @throws whatever `work` throws; then nothing has happened.
   */
  async change<Result>(
    tenant: string | null,
    origin: Origin,
    work: (change: Change) => Promise<Result>,
  ): Promise<Result> {
    const scope = tenant === null ? this.#db.platform : this.#db.of(tenant);
    const { result, touchesControl } = await scope.transaction().execute(async (rows) => {
      const change = new Change(rows, tenant, origin);
      const result = await work(change);
      if (change.events.length > 0) await appendEvents(rows, change.events);
      if (change.touchesControl) await raiseRevision(rows);
      return { result, touchesControl: change.touchesControl };
    });
    if (touchesControl) await this.#controlChanged();
    return result;
  }
}

/**
 * The row is locked until the commit, so revisions are committed in their order. They follow the clock: also after a
 * restore of an older backup the next one is higher than any that a client has seen.
 */
async function raiseRevision(rows: Transaction<Tables>): Promise<void> {
  await sql`
    with raised as (
      update control
      set revision = greatest(revision + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)
      returning revision
    )
    select pg_notify(${controlChannel}, revision::text) from raised`.execute(rows);
}
