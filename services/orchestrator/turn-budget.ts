import { createHash } from 'node:crypto';
import { release, reserve, settle } from '@somagent/budget';
import { type Logger, messageOf, type TenantDatabase } from '@somagent/kit';
import type { Estimate } from '@somagent/models';
import type { GenerateInput, ModelUse } from './contract.ts';
import type { Database } from './database.ts';

/** A budget has no room for a generation: nothing has run. */
export class BudgetExceeded extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'BudgetExceeded';
  }
}

/** Longer than an attempt at a generation may take, seconds. */
const longestAttempt = 180;

/** Room for one attempt. */
export interface TurnReservation {
  /** Gives back what was not used; it never throws. */
  end(used: ModelUse | undefined): Promise<void>;
}

/** The cost hard stop of turns: what a generation may use at most is reserved before it runs. */
export class TurnBudget {
  readonly #db: TenantDatabase<Database>;
  readonly #log: Logger;

  constructor(db: TenantDatabase<Database>, log: Logger) {
    this.#db = db;
    this.#log = log;
  }

  /** @throws BudgetExceeded */
  async reserve(input: GenerateInput, attempt: number, most: Estimate): Promise<TurnReservation> {
    const { tenant, sessionId, turn, team = null, by } = input;
    const requestId = attemptId(turn.turnId, attempt);
    const persona = by?.actor.client ?? null;
    const request = { tenant, team, persona, sessionId, requestId, ...most };
    const answer = await reserve(this.#db.of(tenant), request, { seconds: longestAttempt });
    if (!answer.granted) throw new BudgetExceeded(answer.message);
    return { end: (used) => this.#end(tenant, requestId, used) };
  }

  /** Should the database be away, the reservation keeps its room until it runs out. */
  async #end(tenant: string, requestId: string, used: ModelUse | undefined): Promise<void> {
    const key = { tenant, requestId };
    const rows = this.#db.of(tenant);
    try {
      if (used === undefined) await release(rows, key);
      else {
        const { promptTokens, completionTokens, costMicros } = used;
        await settle(rows, key, { tokens: promptTokens + completionTokens, costMicros });
      }
    } catch (error) {
      this.#log.warn({ requestId, used, reason: messageOf(error) }, 'the use of a turn cannot be stored at the moment');
    }
  }
}

/** An id for each attempt at a turn, the same each time: a UUID of version 8 (RFC 9562, section 5.8). */
export function attemptId(turnId: string, attempt: number): string {
  const bytes = createHash('sha256').update(`${turnId}/${attempt}`).digest().subarray(0, 16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
