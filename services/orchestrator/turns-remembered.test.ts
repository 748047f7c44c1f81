import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { startCollector, type TestCollector } from '@somagent/bootstrap/testing/otel-collector.ts';
import { tenantGaps } from '@somagent/bootstrap/testing/tenant-gaps.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import {
  asTenant,
  ControlView,
  createLogger,
  inSpan,
  startTracing,
  stopTracing,
  type TenantDatabase,
} from '@somagent/kit';
import { MemoryClient } from '@somagent/memory-gateway/client.ts';
import { startMemoryService, type TestMemoryService } from '@somagent/memory-gateway/testing/service.ts';
import type { Models } from '@somagent/models';
import { objectOf, tenantObject, userOf } from '@somagent/relations';
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
import { traceSender } from './trace-client.ts';
import { TurnBudget } from './turn-budget.ts';
import { workflowSource } from './workflow-source.ts';

const log = createLogger({ service: 'orchestrator', level: 'silent' });
const gguf = builtModel();
const missing = !existsSync(temporalProgram()) ? 'Temporal is not built' : gguf === undefined && 'there is no model';

const control = Object.assign(
  new ControlView({
    revision: 1,
    halted: { all: false, tenants: [] },
    suspended: { tenants: [], users: [] },
    revoked: { sessions: [], tokens: [], keys: [] },
    training: { unlocked: [] },
  }),
  { ready: true, onChange: () => () => undefined },
);

/** A way to a port that can be cut. */
class Line {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #target: number;
  port = 0;

  constructor(target: number) {
    this.#target = target;
    this.#server = createServer((from) => this.#join(from));
  }

  async open(): Promise<void> {
    await new Promise<void>((done) => this.#server.listen(this.port, '127.0.0.1', done));
    const address = this.#server.address();
    if (typeof address === 'object' && address !== null) this.port = address.port;
  }

  async cut(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<unknown>((done) => this.#server.close(done));
  }

  #join(from: Socket): void {
    const to = connect(this.#target, '127.0.0.1');
    for (const socket of [from, to]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => this.#sockets.delete(socket));
    }
    from.pipe(to).pipe(from);
  }
}

describe('turns that are remembered, on a real Temporal with every server real', {
  skip: missing,
  timeout: 600_000,
}, () => {
  let memory: TestMemoryService;
  let temporal: TestTemporal;
  let model: TestModel;
  let models: Models;
  let line: Line;
  let db: TenantDatabase<Database>;
  let native: NativeConnection;
  let connection: Connection;
  let client: Client;
  let worker: Worker;
  let running: Promise<void>;

  before(async () => {
    Runtime.install({ logger: new DefaultLogger('ERROR') });
    const summarizer = { summarize: () => Promise.reject(new Error('nothing is summarized here')) };
    [memory, temporal, model] = await Promise.all([
      startMemoryService(summarizer),
      startTemporal(),
      startModel(gguf ?? ''),
    ]);
    const user = userOf({ tenant: 'acme', subject: 'ada' });
    await memory.relate([{ user, relation: 'member', object: tenantObject('acme') }]);
    line = new Line(Number(new URL(memory.url).port));
    await line.open();
    db = await openSessions();
    models = modelsOf(model);
    ({ native, worker } = await startWorker());
    running = worker.run();
    connection = await Connection.connect({ address: temporal.address });
    client = new Client({
      connection,
      namespace: temporal.namespace,
      interceptors: { workflow: [traceSender] },
    });
  });

  after(async () => {
    worker?.shutdown();
    await running;
    await connection?.close();
    await native?.close();
    await db?.destroy();
    await models?.close();
    await line?.cut();
    await Promise.all([model?.stop(), temporal?.stop(), memory?.stop()]);
  });

  async function startWorker() {
    const store = new SessionStore(db);
    const tokenFile = await memory.workloadFile('orchestrator');
    const gateway = new MemoryClient({ url: `https://127.0.0.1:${line.port}`, caFile: memory.caFile, tokenFile });
    const workload = 'system:serviceaccount:local-services:orchestrator';
    const connected = await NativeConnection.connect({ address: temporal.address });
    const created = await Worker.create({
      connection: connected,
      namespace: temporal.namespace,
      taskQueue: 'sessions',
      ...workflowSource(import.meta.filename),
      activities: createActivities({
        store,
        halts: new HaltSwitch({ control, log, record: async () => undefined }),
        policy: new StepPolicy({ engine: memory.policy, control, workload }),
        model: new Model({ models, name: 'soma-tiny', maxTokens: 60 }),
        budget: new TurnBudget(db, log),
        // The bound is that of a crowded machine here; recall.test.ts holds the real one.
        recall: new SessionRecall({ client: gateway, log, bound: 4000, similarity: 0.2 }),
        memory: gateway,
        historyTurns: 2,
      }),
    });
    return { native: connected, worker: created };
  }

  async function openSessions(): Promise<TenantDatabase<Database>> {
    const { postgres } = memory.database;
    const admin = await postgres.connect('postgres');
    await admin.query(`create role sessions login password 'sessions'`);
    await admin.query('create database sessions owner sessions');
    await admin.end();
    const { host, port, ca } = postgres.server;
    const account = { user: 'sessions', password: 'sessions', database: 'sessions' };
    const pool = new pg.Pool({ host, port, ...account, ssl: { ca: ca ?? '' }, max: 8 });
    const opened = openDatabase(pool.on('error', () => undefined));
    await migrate(opened.untenanted);
    return opened;
  }

  /** Asks a turn in a session, which is started with the first. */
  function ask(sessionId: string, prompt: string): Promise<Turn> {
    const turn: TurnInput = { turnId: randomUUID(), prompt, receivedAt: Date.now() };
    const input: SessionInput = { tenant: 'acme', sessionId, subject: 'ada', idleTimeout: 3_600_000 };
    type Start = (input: SessionInput) => Promise<unknown>;
    return client.workflow.executeUpdateWithStart<Start, Turn, [TurnInput]>(messages.turn, {
      updateId: turn.turnId,
      args: [turn],
      startWorkflowOperation: new WithStartWorkflowOperation<Start>(sessionWorkflow, {
        workflowId: workflowIdOf('acme', sessionId),
        taskQueue: 'sessions',
        args: [input],
        workflowIdConflictPolicy: 'USE_EXISTING',
      }),
    });
  }

  /** What the event of a turn's end says of recall. */
  async function noteOf(turnId: string): Promise<{ state: string; memories: number }> {
    const { rows } = await sql<{ recall: { state: string; memories: number } }>`
      select value -> 'data' -> 'recall' as recall from outbox
      where value ->> 'type' = 'turn.ended' and value -> 'data' ->> 'turnId' = ${turnId}`.execute(db.untenanted);
    return rows[0]?.recall ?? { state: 'unknown', memories: 0 };
  }

  async function remembered(prompt: string): Promise<readonly { id: string; owner: string; session_id: string }[]> {
    const { rows } = await sql<{ id: string; owner: string; session_id: string }>`
      select id, owner, session_id from memory where text like ${`Asked: ${prompt}%`}`.execute(
      memory.database.database.of('acme'),
    );
    return rows;
  }

  const until = (what: string, condition: () => Promise<boolean>) =>
    waitFor(
      { name: what, address: 'this test', fix: 'read its log' },
      async () => {
        if (!(await condition())) throw new Error('not yet');
      },
      { seconds: 120 },
    );

  const [first, second] = [randomUUID(), randomUUID()];

  it('remembers a completed turn once, for whoever asked it, in its session', async () => {
    const turn = await ask(first, 'What is a session?');
    assert.equal(turn.status, 'completed');
    await until('the memory of the turn', async () => (await remembered('What is a session?')).length === 1);
    const [found] = await remembered('What is a session?');
    assert.deepEqual([found?.owner, found?.session_id], ['ada', first]);
    assert.equal((await noteOf(turn.id)).state, 'degraded', 'before the first memory there are no vectors');
  });

  it('recalls it in another session, and the event of the turn says so', async () => {
    await until('the vector', async () => (await memory.indexer.backlog()).tasks === 0);
    const turn = await ask(second, 'Tell me what a session is');
    assert.equal(turn.status, 'completed');
    const { state, memories } = await noteOf(turn.id);
    assert.deepEqual([state, memories >= 1], ['recalled', true]);
  });

  it('goes on without the gateway, and remembers the turn when it is back', async () => {
    await line.cut();
    const turn = await ask(second, 'What is a tenant?');
    assert.equal(turn.status, 'completed');
    assert.equal((await noteOf(turn.id)).state, 'away');
    assert.deepEqual(await remembered('What is a tenant?'), []);
    // The workflow ends for its client at once, and lives on until what it owes is done.
    const handle = client.workflow.getHandle(workflowIdOf('acme', second));
    await handle.executeUpdate(messages.close, { args: [] });
    await line.open();
    await until('the memory of the turn', async () => (await remembered('What is a tenant?')).length === 1);
    assert.equal(await handle.result(), 'client');
  });

  it('is one trace from the request over the workflow to the model and the memory gateway, all of one tenant', async () => {
    const collector = await startCollector();
    try {
      startTracing('orchestrator', log, {
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
        OTEL_EXPORTER_OTLP_CERTIFICATE: collector.caFile,
      });
      const turn = await asTenant('acme', () =>
        inSpan('POST /v1/sessions', {}, () => ask(randomUUID(), 'What is a persona?')),
      );
      assert.equal(turn.status, 'completed');
      await until('the memory of the turn', async () => (await remembered('What is a persona?')).length === 1);
      await stopTracing();
      await until('the trace', async () => namesIn(collector).has('activity rememberTurn'));
      const spans = collector.spans();
      const root = spans.find(({ name }) => name === 'POST /v1/sessions');
      const ours = spans.filter(({ traceId }) => traceId === root?.traceId);
      const names = new Set(ours.map(({ name }) => name));
      const expected = ['activity openSession', 'activity generate', 'activity rememberTurn', 'chat soma-tiny'];
      for (const name of [...expected, 'POST /v1/memories/recall', 'POST /v1/memories']) {
        assert.ok(names.has(name), `${name} is not among ${[...names].join(', ')}`);
      }
      const above = (name: string) => {
        const span = ours.find((each) => each.name === name);
        return ours.find(({ spanId }) => spanId === span?.parentId)?.name;
      };
      assert.equal(above('chat soma-tiny'), 'activity generate');
      assert.match(above('POST /v1/memories/recall') ?? '', /^POST 127\.0\.0\.1/, 'the gateway continues the trace');
      assert.deepEqual(tenantGaps(spans), []);
      assert.deepEqual([...new Set(ours.map(({ attributes }) => attributes['soma.tenant']))], ['acme']);
    } finally {
      await stopTracing();
      await collector.stop();
    }
  });

  it('shows nothing of it to another tenant that names the same session', async () => {
    const stranger = new MemoryClient({
      url: memory.url,
      caFile: memory.caFile,
      tokenFile: await memory.workloadFile('orchestrator'),
    });
    const user = userOf({ tenant: 'globex', subject: 'gil' });
    await memory.relate([
      { user, relation: 'member', object: tenantObject('globex') },
      { user, relation: 'owner', object: objectOf('session', 'globex', first) },
    ]);
    const question = { query: 'What is a session?', limit: 10, deadlineMs: 5000 };
    const elsewhere = { tenant: 'globex', subject: 'gil', sessionId: first };
    const found = await stranger.recall(elsewhere, question, AbortSignal.timeout(60_000));
    assert.deepEqual(found.memories, [], 'the id of another tenant’s session opens nothing');
  });
});

const namesIn = (collector: TestCollector): ReadonlySet<string> => new Set(collector.spans().map(({ name }) => name));
