import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { putBudget, removeBudget } from '@somagent/budget';
import { Halts } from '@somagent/identity/halts.ts';
import { Ledger, ownWork } from '@somagent/identity/ledger.ts';
import { Tenants } from '@somagent/identity/tenants.ts';
import { TestService } from '@somagent/identity/testing/service.ts';
import { ControlState, createLogger, type TenantDatabase } from '@somagent/kit';
import type { Models } from '@somagent/models';
import { Client, Connection, WithStartWorkflowOperation } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { sql } from 'kysely';
import pg from 'pg';
import { createActivities } from './activities.ts';
import { messages, type SessionInput, sessionWorkflow, type Turn, type TurnInput, workflowIdOf } from './contract.ts';
import { type Database, openDatabase } from './database.ts';
import { HaltSwitch } from './halt.ts';
import { migrate } from './migrations.ts';
import { Model } from './model.ts';
import { SessionRecall } from './recall.ts';
import { SessionStore } from './session-store.ts';
import { StepPolicy } from './step-policy.ts';
import { builtModel, modelsOf, startModel, type TestModel } from './testing/model.ts';
import { startTemporal, type TestTemporal, temporalProgram } from './testing/temporal.ts';
import { TurnBudget } from './turn-budget.ts';

const log = createLogger({ service: 'orchestrator', level: 'silent' });
const origin = ownWork('test');
const gguf = builtModel();
const missing = !existsSync(temporalProgram()) ? 'Temporal is not built' : gguf === undefined && 'there is no model';
/** Fewer than the turns that are halted: if those held them, no other turn would run. */
const slots = 2;
const halted = 6;

describe('turns of a halted tenant, on a real Temporal with the real model', {
  skip: missing,
  timeout: 300_000,
}, () => {
  let identity: TestService;
  let temporal: TestTemporal;
  let model: TestModel;
  let models: Models;
  let control: ControlState;
  let halting: HaltSwitch;
  let halts: Halts;
  let db: TenantDatabase<Database>;
  let native: NativeConnection;
  let connection: Connection;
  let client: Client;
  let worker: Worker;
  let running: Promise<void>;

  before(async () => {
    Runtime.install({ logger: new DefaultLogger('ERROR') });
    [identity, temporal, model] = await Promise.all([TestService.start(), startTemporal(), startModel(gguf ?? '')]);
    const { url } = await identity.replica();
    const tokenFile = await identity.workloadFile('orchestrator');
    control = new ControlState({ url, caFile: identity.caFile, tokenFile, log });
    control.start();
    const ledger = new Ledger(identity.database.database);
    halts = new Halts(ledger);
    const tenants = new Tenants(ledger, identity.database.database);
    for (const tenant of ['acme', 'globex']) await tenants.put(origin, tenant, tenant);
    db = await openSessions();
    await until('the control state', async () => control.ready);
    const store = new SessionStore(db);
    models = modelsOf(model);
    halting = new HaltSwitch({ control, log, record: (events) => store.record(null, events) });
    halting.start();
    const workload = 'system:serviceaccount:local-services:orchestrator';
    native = await NativeConnection.connect({ address: temporal.address });
    worker = await Worker.create({
      connection: native,
      namespace: temporal.namespace,
      taskQueue: 'sessions',
      workflowsPath: fileURLToPath(new URL('./workflows.ts', import.meta.url)),
      activities: createActivities({
        store,
        halts: halting,
        policy: new StepPolicy({ engine: identity.policy, control, workload }),
        model: new Model({ models, name: 'soma-tiny', maxTokens: 200 }),
        budget: new TurnBudget(db, log),
        recall: new SessionRecall({ log }),
        historyTurns: 2,
      }),
      maxConcurrentActivityTaskExecutions: slots,
      maxHeartbeatThrottleInterval: '250ms',
      defaultHeartbeatThrottleInterval: '250ms',
    });
    running = worker.run();
    connection = await Connection.connect({ address: temporal.address });
    client = new Client({ connection, namespace: temporal.namespace });
  });

  after(async () => {
    worker?.shutdown();
    await running;
    await connection?.close();
    await native?.close();
    halting?.stop();
    await control?.stop();
    await db?.destroy();
    await models?.close();
    await Promise.all([model?.stop(), temporal?.stop(), identity?.stop()]);
  });

  async function openSessions(): Promise<TenantDatabase<Database>> {
    const { postgres } = identity.database;
    const admin = await postgres.connect('postgres');
    await admin.query(`create role sessions login password 'sessions'`);
    await admin.query('create database sessions owner sessions');
    await admin.end();
    const { host, port, ca } = postgres.server;
    const settings = {
      host,
      port,
      user: 'sessions',
      password: 'sessions',
      database: 'sessions',
      ssl: { ca: ca ?? '' },
    };
    const opened = openDatabase(new pg.Pool({ ...settings, max: 8 }).on('error', () => undefined));
    await migrate(opened.untenanted);
    return opened;
  }

  const until = (what: string, condition: () => Promise<boolean>, seconds = 60) =>
    waitFor(
      { name: what, address: 'this test', fix: 'read its log' },
      async () => {
        if (!(await condition())) throw new Error('not yet');
      },
      { seconds },
    );

  /** Starts a session with its first turn. */
  function ask(tenant: string): Promise<Turn> {
    const turn: TurnInput = { turnId: randomUUID(), prompt: 'What is a session?', receivedAt: Date.now() };
    const sessionId = randomUUID();
    return client.workflow.executeUpdateWithStart<(input: SessionInput) => Promise<unknown>, Turn, [TurnInput]>(
      messages.turn,
      {
        updateId: turn.turnId,
        args: [turn],
        startWorkflowOperation: new WithStartWorkflowOperation<(input: SessionInput) => Promise<unknown>>(
          sessionWorkflow,
          {
            workflowId: workflowIdOf(tenant, sessionId),
            taskQueue: 'sessions',
            args: [{ tenant, sessionId, subject: 'ada', idleTimeout: 3_600_000 }],
            workflowIdConflictPolicy: 'USE_EXISTING',
          },
        ),
      },
    );
  }

  /** Pieces of text that were generated for a tenant. */
  async function tokens(tenant: string): Promise<number> {
    const events = db.of(tenant).selectFrom('session_event').select('seq').where('type', '=', 'turn.token');
    return (await events.execute()).length;
  }

  it('an unhalted turn is answered: the model and the workflow work', async () => {
    const turn = await ask('acme');
    assert.equal(turn.status, 'completed');
    assert.ok(turn.answer.length > 0);
  });

  it('a turn is settled with what it used, and one that its budget has no room for fails before it runs', async () => {
    const rows = db.of('globex');
    const budget = { tenant: 'globex', scope: 'tenant', id: 'globex', period: 'total' } as const;
    await putBudget(rows, { ...budget, tokens: 2000, costMicros: null }, origin);
    const first = await ask('globex');
    assert.equal(first.status, 'completed');
    const { promptTokens = 0, completionTokens = 0 } = first.usage ?? {};
    const state = async () => {
      const { rows: uses } = await sql<{ used: string; held: string }>`
        select used_tokens as used, held_tokens as held from budget_use`.execute(rows);
      return uses.map(({ used, held }) => [Number(used), Number(held)]);
    };
    assert.deepEqual(await state(), [[promptTokens + completionTokens, 0]]);
    await putBudget(rows, { ...budget, tokens: 200, costMicros: null }, origin);
    const before = await tokens('globex');
    const second = await ask('globex');
    assert.equal(second.status, 'failed');
    assert.match(
      second.error ?? '',
      /^BudgetExceeded: the total budget of tenant globex is 200 tokens, \d+ of them are used/,
    );
    assert.equal(await tokens('globex'), before, 'not a word was generated');
    assert.deepEqual(await state(), [[promptTokens + completionTokens, 0]]);
    await removeBudget(rows, budget, origin);
    assert.equal((await ask('globex')).status, 'completed');
  });

  it('wait without holding a place, also for longer than attempts may fail, and are answered when it is undone', async () => {
    const before = await tokens('acme');
    await halts.halt(origin, 'acme', 'test');
    await until('the halt', async () => control.halted('acme'));
    const asked = Array.from({ length: halted }, () => ask('acme'));
    const answers = Promise.all(asked);
    await until('every turn waits', async () => halting.waiting('acme') === halted);
    const other = await ask('globex');
    assert.equal(other.status, 'completed', 'another tenant works on the places that are free');
    // The workflow would give a failing activity five attempts: more looks than that must pass.
    await until('more looks than attempts', async () => (await attempts()) > 6, 90);
    assert.equal(await tokens('acme'), before, 'not a word was generated');
    await halts.resume(origin, 'acme', 'test');
    const turns = await answers;
    assert.deepEqual(
      turns.map(({ status, error }) => ({ status, error })),
      turns.map(() => ({ status: 'completed', error: null })),
    );
    const rows = await db.of('acme').selectFrom('turn').select(['tries', 'halts']).execute();
    assert.ok(
      rows.every(({ tries, halts: stopped }) => tries - stopped === 1),
      JSON.stringify(rows),
    );
  });

  /** The most attempts of a waiting generation, as Temporal counts them. */
  async function attempts(): Promise<number> {
    let most = 0;
    for await (const { workflowId } of client.workflow.list({ query: 'ExecutionStatus = "Running"' })) {
      const { raw } = await client.workflow.getHandle(workflowId).describe();
      for (const { attempt } of raw.pendingActivities ?? []) most = Math.max(most, attempt ?? 0);
    }
    return most;
  }

  it('stop in the middle within a second, keep what they are, and begin again when it is undone', async () => {
    const turns = Array.from({ length: 24 }, () => ask('acme'));
    const answers = Promise.all(turns);
    await until('generations run', async () => halting.running > 0);
    await halts.halt(origin, 'acme', 'test');
    const pulled = performance.now();
    // Between two turns nothing runs either: only with the halt in force does it mean that all has stopped.
    await until('every generation has stopped', async () => control.halted('acme') && halting.running === 0, 5);
    const elapsed = performance.now() - pulled;
    assert.ok(elapsed < 1000, `${elapsed} ms`);
    await until('turns wait', async () => halting.waiting('acme') > 0);
    const stopped = await tokens('acme');
    // That nothing comes any more is only seen by waiting.
    await sleep(1500);
    assert.equal(await tokens('acme'), stopped);
    await halts.resume(origin, 'acme', 'test');
    for (const { status, error } of await answers) assert.deepEqual([status, error], ['completed', null]);
  });
});
