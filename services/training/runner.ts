import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { OutgoingEvent } from '@somagent/events';
import { appendEvents, type Logger, reasonOf } from '@somagent/kit';
import type { Database } from './database.ts';
import { approvedTurns, type Exported, exportDataset, TooLittleData } from './export.ts';
import { type GateVerdict, judge, type Thresholds } from './gate.ts';
import { type Lineage, type LineageSigner, sha256 } from './lineage.ts';
import type { TrainingLock } from './lock.ts';
import type { Models } from './models.ts';
import { failed, type Outcome, type Run, type Runs } from './runs.ts';
import type { Sessions } from './sessions.ts';
import { JobFailed, reportSchema, trainFolder } from './trainer.ts';

/** Options of {@link Runner}. */
export interface RunnerOptions {
  readonly db: Database;
  /** The sessions, read-only. */
  readonly sessions: Sessions;
  readonly runs: Runs;
  readonly lock: TrainingLock;
  readonly models: Models;
  readonly signer: LineageSigner;
  /** Program of the job; the folder follows. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Where the folders of runs are made. */
  readonly directory: string;
  readonly log: Logger;
  readonly thresholds?: Thresholds;
  /** Time between two looks at the queue, milliseconds. @default 1000 */
  readonly interval?: number;
}

/** Runs what waits, one after the other. */
export class Runner {
  readonly #options: RunnerOptions;
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** Takes up what was left lying and works until {@link stop}. */
  start(): void {
    this.#running ??= this.#work();
  }

  /** Stops a job that runs; its run is taken up again by the next process. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ProcessEnds());
    await this.#running;
  }

  async #work(): Promise<void> {
    const { runs, log, interval = 1000 } = this.#options;
    let recovered = false;
    while (!this.#stopped.signal.aborted) {
      try {
        if (!recovered) await runs.recover();
        recovered = true;
        const run = await runs.claim();
        if (run !== undefined) await this.run(run);
        else await sleep(interval, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
      } catch (error) {
        log.error({ err: error }, 'a run could not be looked after; trying again');
        recovered = false;
        await sleep(interval, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
      }
    }
  }

  /** One run from its export to its verdict. Its data leave this machine's disk with it. */
  async run(run: Run): Promise<void> {
    const { runs, directory, log } = this.#options;
    const folder = await mkdtemp(join(directory, 't-'));
    try {
      const outcome = await this.#outcome(run, folder);
      if (outcome === undefined) return;
      await runs.end(run, outcome);
      log.info({ tenant: run.tenant, run: run.id, state: outcome.state, reasons: outcome.reasons }, 'a run has ended');
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** Undefined when this process ends before the run does. */
  async #outcome(run: Run, folder: string): Promise<Outcome | undefined> {
    const followed = this.#follow(run);
    const signal = AbortSignal.any([followed.signal, this.#stopped.signal]);
    try {
      const exported = await this.#prepare(run, folder, signal);
      await trainFolder(folder, signal, this.#options);
      const outcome = await this.#judged(run, folder, exported);
      // Nothing that was decided after the lock counts.
      signal.throwIfAborted();
      return outcome;
    } catch (error) {
      if (followed.signal.aborted) return failed(reasonOf(followed.signal.reason), 'stopped');
      if (this.#stopped.signal.aborted) return undefined;
      if (error instanceof TooLittleData || error instanceof JobFailed) return failed(error.message);
      this.#options.log.error({ err: error, run: run.id }, 'a run failed');
      return failed(reasonOf(error));
    } finally {
      followed.release();
    }
  }

  #follow({ tenant, id, requester, request_id: requestId }: Run) {
    const { lock, db, log } = this.#options;
    const record = (verdict: OutgoingEvent) =>
      void appendEvents(db.untenanted, [verdict]).catch((error: unknown) => {
        log.error({ err: error, run: id }, 'the verdict that stops a run could not be recorded');
      });
    return lock.follow({ tenant, requester, capability: 'training:run', runId: id, requestId }, record);
  }

  async #prepare({ tenant, recipe }: Run, folder: string, signal: AbortSignal): Promise<Exported> {
    const { db, sessions, models } = this.#options;
    signal.throwIfAborted();
    await mkdir(join(folder, 'dataset'));
    const exported = await exportDataset(join(folder, 'dataset'), tenant, await approvedTurns(db, sessions, tenant));
    await writeFile(join(folder, 'base.gguf'), await models.serving(db, tenant));
    await writeFile(join(folder, 'recipe.json'), JSON.stringify(recipe));
    return exported;
  }

  /** The gate; only a model that passes it is kept. */
  async #judged({ tenant, id: runId }: Run, folder: string, exported: Exported): Promise<Outcome> {
    const { signer, models, thresholds } = this.#options;
    const report = reportSchema.parse(JSON.parse(await readFile(join(folder, 'report.json'), 'utf8')));
    const model = await readFile(join(folder, 'model.gguf'));
    requireSame('dataset', report.datasetHash, exported.hash);
    requireSame('model', report.modelHash, sha256(model));
    const { candidate, serving, seconds: _, ...known } = report;
    const lineage: Lineage = { version: 1, tenant, runId, ...known, metrics: { candidate, serving } };
    const signed = signer.sign(lineage);
    const gate: GateVerdict = judge(candidate, serving, thresholds);
    if (gate.passed) await models.store(tenant, model, signed, exported.manifest);
    return { state: gate.passed ? 'passed' : 'refused', reasons: gate.problems, gate, lineage: signed };
  }
}

/** This process is asked to end. */
class ProcessEnds extends Error {}

function requireSame(what: string, reported: string, found: string): void {
  if (reported !== found) throw new Error(`the job reports the ${what} ${reported}, but it is ${found}`);
}
