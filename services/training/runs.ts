import { randomUUID } from 'node:crypto';
import { event } from '@somagent/events';
import { Problem } from '@somagent/governance';
import { type Selectable, sql } from 'kysely';
import { change, type Database, type Requester, type RunState, type RunTable } from './database.ts';
import type { GateVerdict } from './gate.ts';
import type { SignedLineage } from './lineage.ts';
import { problems } from './problems.ts';
import type { Recipe } from './recipe.ts';

/** A run as the database has it. */
export type Run = Selectable<RunTable>;

/** How a run ended. */
export interface Outcome {
  readonly state: Exclude<RunState, 'queued' | 'running'>;
  readonly reasons: readonly string[];
  readonly gate: GateVerdict | null;
  readonly lineage: SignedLineage | null;
}

/** Times that a run is begun before it counts as failed: a pod that is killed takes its run with it. */
const mostAttempts = 3;

/** The runs of every tenant and what becomes of them. */
export class Runs {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** Puts a run at the end of the queue; one at a time per tenant. @throws Problem run-open. */
  request(tenant: string, requester: Requester, requestId: string, recipe: Recipe): Promise<Run> {
    return change(this.#db, tenant, async (rows, record) => {
      const id = randomUUID();
      const run = await rows
        .insertInto('run')
        .values({
          tenant,
          id,
          requester: sql`${JSON.stringify(requester)}::jsonb`,
          request_id: requestId,
          recipe: sql`${JSON.stringify(recipe)}::jsonb`,
          gate: null,
          lineage: null,
          ended_at: null,
        })
        .onConflict((conflict) => conflict.doNothing())
        .returningAll()
        .executeTakeFirst();
      if (run === undefined) throw new Problem(problems.runOpen, 'wait until it ends, or lock training to stop it');
      const actor = actorOf(requester);
      record(
        event('audit.control', 'training.run-requested', { tenant, actor, requestId, data: { runId: id, recipe } }),
      );
      return run;
    });
  }

  /** @throws Problem not-found. */
  async get(tenant: string, id: string): Promise<Run> {
    const run = await this.#db.of(tenant).selectFrom('run').selectAll().where('id', '=', id).executeTakeFirst();
    if (run === undefined) throw new Problem('not-found', `run ${id} does not exist`);
    return run;
  }

  /** Newest first. */
  list(tenant: string, limit: number): Promise<Run[]> {
    const runs = this.#db.of(tenant).selectFrom('run').selectAll();
    return runs.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute();
  }

  /** Takes back what a process that is gone had begun. @returns how many. */
  async recover(): Promise<number> {
    const lost = await this.#db.platform.selectFrom('run').selectAll().where('state', '=', 'running').execute();
    for (const run of lost) {
      if (run.attempts < mostAttempts) await this.#requeue(run);
      else await this.end(run, failed(`begun ${run.attempts} times and never ended: read the log of the service`));
    }
    return lost.length;
  }

  /** The run that has waited longest, begun now; undefined when none waits. */
  claim(): Promise<Run | undefined> {
    return this.#db.platform.transaction().execute(async (rows) => {
      const next = await rows
        .selectFrom('run')
        .select(['tenant', 'id'])
        .where('state', '=', 'queued')
        .orderBy('created_at')
        .limit(1)
        .forUpdate()
        .skipLocked()
        .executeTakeFirst();
      if (next === undefined) return undefined;
      return rows
        .updateTable('run')
        .set({ state: 'running', attempts: sql<number>`attempts + 1` })
        .where('tenant', '=', next.tenant)
        .where('id', '=', next.id)
        .returningAll()
        .executeTakeFirst();
    });
  }

  /** Ends a run, with its event. */
  async end({ tenant, id, request_id: requestId }: Run, { state, reasons, gate, lineage }: Outcome): Promise<void> {
    await change(this.#db, tenant, async (rows, record) => {
      await rows
        .updateTable('run')
        .set({
          state,
          reasons: [...reasons],
          gate: sql`${JSON.stringify(gate)}::jsonb`,
          lineage: sql`${JSON.stringify(lineage)}::jsonb`,
          ended_at: sql<Date>`clock_timestamp()`,
        })
        .where('id', '=', id)
        .execute();
      const actor = { kind: 'system' as const, id: 'training', client: null };
      const { datasetHash = null, modelHash = null } = lineage?.lineage ?? {};
      const data = { runId: id, outcome: state, reasons: [...reasons], datasetHash, modelHash };
      record(event('audit.control', 'training.run-ended', { tenant, actor, requestId, data }));
    });
  }

  async #requeue({ tenant, id }: Run): Promise<void> {
    await this.#db.of(tenant).updateTable('run').set({ state: 'queued' }).where('id', '=', id).execute();
  }
}

/** An end without a model. */
export const failed = (reason: string, state: 'failed' | 'stopped' = 'failed'): Outcome => ({
  state,
  reasons: [reason],
  gate: null,
  lineage: null,
});

/** Who asks, as events name them. */
export const actorOf = ({ kind, id, client }: Requester) => ({ kind, id, client });
