import { event } from '@somagent/events';
import { Problem } from '@somagent/governance';
import { sql } from 'kysely';
import { change, type Database, type Requester } from './database.ts';
import { sha256 } from './lineage.ts';
import { ModelDamaged, type Models, servingOf } from './models.ts';
import { problems } from './problems.ts';
import { actorOf, type Runs } from './runs.ts';

/** Which model serves a tenant, as clients see it. */
export interface ServingView {
  /** SHA-256 of the GGUF file; null: the bundled model. */
  readonly modelHash: string | null;
  readonly runId: string | null;
  readonly promotedBy: string | null;
  readonly promotedAt: string | null;
}

/** Who may serve: only what passed the gate, and only once a person has said so. */
export class Promotions {
  readonly #db: Database;
  readonly #runs: Runs;
  readonly #models: Models;

  constructor(db: Database, runs: Runs, models: Models) {
    this.#db = db;
    this.#runs = runs;
    this.#models = models;
  }

  async serving(tenant: string): Promise<ServingView> {
    const row = await servingOf(this.#db, tenant);
    return {
      modelHash: row?.model_hash ?? null,
      runId: row?.run_id ?? null,
      promotedBy: row?.promoted_by ?? null,
      promotedAt: row?.promoted_at.toISOString() ?? null,
    };
  }

  /**
   * Makes the model of a run the one that serves, after its file, hash and signed lineage were checked once more.
   * Promoted again it changes nothing.
   * @throws Problem not-found, run-not-passed, model-damaged.
   */
  async promote(tenant: string, by: Requester, requestId: string, runId: string, reason: string): Promise<ServingView> {
    const run = await this.#runs.get(tenant, runId);
    const modelHash = run.lineage?.lineage.modelHash;
    if (run.state !== 'passed' || modelHash === undefined) {
      throw new Problem(problems.notPassed, `run ${runId} is ${run.state}: ${run.reasons.join('; ') || 'no model'}`);
    }
    await this.#models.read(tenant, modelHash).catch((error: unknown) => {
      throw error instanceof ModelDamaged ? new Problem(problems.modelDamaged, error.message) : error;
    });
    await this.#requireComparable(tenant, run.id, modelHash, run.lineage?.lineage.baseModelHash);
    const number = await change(this.#db, tenant, async (rows, record) => {
      await sql`select pg_advisory_xact_lock(hashtext('promotion'), hashtext(${tenant}))`.execute(rows);
      const previous = await rows.selectFrom('promotion').selectAll().orderBy('number', 'desc').executeTakeFirst();
      if (previous?.run_id === runId) return previous.number;
      const next = (previous?.number ?? 0) + 1;
      const row = { tenant, number: next, run_id: runId, model_hash: modelHash, promoted_by: by.id, reason };
      await rows.insertInto('promotion').values(row).execute();
      const data = { runId, modelHash, previous: previous?.model_hash ?? null, reason };
      record(event('audit.control', 'model.promoted', { tenant, actor: actorOf(by), requestId, data }));
      return next;
    });
    // Repeated by a repeated request, should the store be away now.
    await this.#models.announce({ tenant, number, runId, modelHash });
    return this.serving(tenant);
  }

  /** The gate compared with one model only: a run from before another promotion is judged anew, unless it served once. */
  async #requireComparable(tenant: string, runId: string, modelHash: string, base: string | undefined): Promise<void> {
    const served = await this.#db
      .of(tenant)
      .selectFrom('promotion')
      .select('number')
      .where('model_hash', '=', modelHash)
      .executeTakeFirst();
    if (served !== undefined) return;
    const serving = sha256(await this.#models.serving(this.#db, tenant));
    if (serving === base) return;
    throw new Problem(
      problems.notPassed,
      `run ${runId} was compared with ${base}, but ${serving} serves now: run anew`,
    );
  }
}
