import { randomUUID } from 'node:crypto';
import { Problem } from '@somagent/governance';
import { sql } from 'kysely';
import type { Database } from './database.ts';
import { type Change, type Ledger, type Origin, ownWork } from './ledger.ts';
import { problems } from './problems.ts';
import { lockTenant } from './tenants.ts';

/** A proposal as clients see it. */
export interface ProposalView {
  readonly id: string;
  readonly proposedBy: string;
  readonly reason: string;
  readonly expiresAt: string;
}

/** Training mode of a tenant, and the proposal that waits for a second person. */
export interface TrainingView {
  readonly training: 'locked' | 'unlocked';
  readonly proposal: ProposalView | null;
}

/** How long a proposal waits for its second person, seconds. */
export const proposalSeconds = { default: 3600, shortest: 60, longest: 86_400 } as const;

const columns = ['id', 'proposed_by', 'reason', 'expires_at'] as const;

interface ProposalRow {
  readonly id: string;
  readonly proposed_by: string;
  readonly reason: string;
  readonly expires_at: Date;
}

/**
 * Training mode: locked unless two people unlock it. One proposes, another approves before the proposal runs out;
 * locking needs one. Machines decide nothing here: a service account or an API key is not a person.
 */
export class Training {
  readonly #ledger: Ledger;
  readonly #db: Database;

  constructor(ledger: Ledger, db: Database) {
    this.#ledger = ledger;
    this.#db = db;
  }

  /** @throws Problem tenant-unknown. */
  async get(tenant: string): Promise<TrainingView> {
    return this.#db
      .of(tenant)
      .transaction()
      .execute(async (rows) => {
        const { training } = await lockTenant(rows, tenant);
        const open = await rows
          .selectFrom('training_proposal')
          .select(columns)
          .where('status', '=', 'open')
          .where('expires_at', '>', sql<Date>`clock_timestamp()`)
          .executeTakeFirst();
        return { training, proposal: open === undefined ? null : viewOf(open) };
      });
  }

  /**
   * The first person. The same person with the same reason finds the proposal that is open.
   * @throws Problem not-a-person, proposal-open, tenant-unknown.
   */
  async propose(origin: Origin, tenant: string, reason: string, seconds: number): Promise<ProposalView> {
    requirePerson(origin);
    return this.#ledger.change(tenant, origin, async (change) => {
      await lockTenant(change.rows, tenant);
      await expire(change);
      const open = await openProposal(change);
      const mine = open?.proposed_by === origin.actor.id && open.reason === reason;
      if (open !== undefined && !mine) {
        throw new Problem(problems.proposalOpen, `proposal ${open.id} is open: approve it, or lock to withdraw it`);
      }
      if (open !== undefined) return viewOf(open);
      const proposal = await change.rows
        .insertInto('training_proposal')
        .values({
          tenant,
          id: randomUUID(),
          proposed_by: origin.actor.id,
          reason,
          expires_at: sql<Date>`clock_timestamp() + make_interval(secs => ${seconds})`,
        })
        .returning(columns)
        .executeTakeFirstOrThrow();
      const { id: proposalId, expires_at } = proposal;
      change.record('audit.control', 'training.unlock-proposed', {
        proposalId,
        reason,
        expiresAt: expires_at.toISOString(),
      });
      return viewOf(proposal);
    });
  }

  /**
   * The second person: unlocks. Approved again by the same person it changes nothing.
   * @throws Problem not-a-person, second-person, proposal-closed, not-found.
   */
  async approve(origin: Origin, tenant: string, id: string): Promise<TrainingView> {
    requirePerson(origin);
    const approvedBy = origin.actor.id;
    return this.#ledger.change(tenant, origin, async (change) => {
      await lockTenant(change.rows, tenant);
      const proposal = await change.rows
        .selectFrom('training_proposal')
        .select([...columns, 'status', 'decided_by', sql<boolean>`expires_at <= clock_timestamp()`.as('late')])
        .where('id', '=', id)
        .executeTakeFirst();
      if (proposal === undefined) throw new Problem('not-found', `proposal ${id} does not exist`);
      if (proposal.proposed_by === approvedBy) {
        throw new Problem(problems.secondPerson, 'you proposed this: somebody else has to approve it');
      }
      if (proposal.status === 'approved' && proposal.decided_by === approvedBy) return unlocked;
      if (proposal.status !== 'open' || proposal.late) {
        throw new Problem(problems.proposalClosed, `proposal ${id} is ${proposal.status}: propose it anew`);
      }
      await change.rows
        .updateTable('training_proposal')
        .set({ status: 'approved', decided_by: approvedBy })
        .where('id', '=', id)
        .execute();
      await change.rows.updateTable('tenant').set({ training: 'unlocked' }).execute();
      const { proposed_by: proposedBy } = proposal;
      change.record('audit.control', 'training.unlocked', { proposalId: id, proposedBy, approvedBy });
      change.control();
      return unlocked;
    });
  }

  /** Locks at once and withdraws an open proposal: one is enough for the safe direction. */
  lock(origin: Origin, tenant: string, reason: string): Promise<TrainingView> {
    return this.#ledger.change(tenant, origin, async (change) => {
      const { training } = await lockTenant(change.rows, tenant);
      const withdrawn = await change.rows
        .updateTable('training_proposal')
        .set({ status: 'withdrawn', decided_by: origin.actor.id })
        .where('status', '=', 'open')
        .returning('id')
        .executeTakeFirst();
      if (training === 'locked' && withdrawn === undefined) return locked;
      await change.rows.updateTable('tenant').set({ training: 'locked' }).execute();
      change.record('audit.control', 'training.locked', { proposalId: withdrawn?.id ?? null, reason });
      if (training === 'unlocked') change.control();
      return locked;
    });
  }

  /** Closes proposals that have run out, of every tenant. @returns how many. */
  async expireAll(): Promise<number> {
    const due = await this.#db.platform
      .selectFrom('training_proposal')
      .select('tenant')
      .where('status', '=', 'open')
      .where('expires_at', '<=', sql<Date>`clock_timestamp()`)
      .execute();
    for (const { tenant } of due) await this.#ledger.change(tenant, ownWork('training'), expire);
    return due.length;
  }
}

const unlocked: TrainingView = { training: 'unlocked', proposal: null };
const locked: TrainingView = { training: 'locked', proposal: null };

async function expire(change: Change): Promise<void> {
  const late = await change.rows
    .updateTable('training_proposal')
    .set({ status: 'expired' })
    .where('status', '=', 'open')
    .where('expires_at', '<=', sql<Date>`clock_timestamp()`)
    .returning('id')
    .execute();
  for (const { id } of late) {
    change.record('audit.control', 'training.locked', { proposalId: id, reason: 'the proposal ran out' });
  }
}

const openProposal = (change: Change) =>
  change.rows.selectFrom('training_proposal').select(columns).where('status', '=', 'open').executeTakeFirst();

function requirePerson({ actor }: Origin): void {
  if (actor.kind === 'user') return;
  throw new Problem(problems.notPerson, `you are known as ${actor.kind}: sign in as a person (soma login)`);
}

const viewOf = (row: ProposalRow): ProposalView => ({
  id: row.id,
  proposedBy: row.proposed_by,
  reason: row.reason,
  expiresAt: row.expires_at.toISOString(),
});
