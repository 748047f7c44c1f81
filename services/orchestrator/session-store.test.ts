import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { readEvent } from '@somagent/events';
import type { TenantDatabase } from '@somagent/kit';
import { sql } from 'kysely';
import pg from 'pg';
import type { FinishInput, Requester } from './contract.ts';
import { type Database, openDatabase } from './database.ts';
import { migrate } from './migrations.ts';
import { startedEvents } from './session-events.ts';
import { SessionStore } from './session-store.ts';

const by: Requester = { actor: { kind: 'user', id: 'ada', client: 'cli' }, requestId: 'request-1' };

describe('what the orchestrator stores, and the events that it owes', () => {
  let postgres: TestPostgres;
  let db: TenantDatabase<Database>;
  let store: SessionStore;

  before(async () => {
    postgres = await startPostgres();
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
    db = openDatabase(new pg.Pool({ ...settings, max: 4 }).on('error', () => undefined));
    await migrate(db.untenanted);
    store = new SessionStore(db);
  });
  after(async () => {
    await db.destroy();
    await postgres.stop();
  });

  /** Takes what waits for Kafka, in its order. */
  async function owed() {
    const { rows } = await sql<{ seq: string; topic: string; key: string; value: { type: string; data: object } }>`
      with taken as (delete from outbox returning *) select seq, topic, key, value from taken order by seq`.execute(
      db.untenanted,
    );
    return rows.map(({ topic, key, value }) => ({ topic, key, value }));
  }
  const summary = async () => (await owed()).map(({ topic, key, value }) => `${topic} ${key} ${value.type}`);

  async function openSession() {
    const key = { tenant: 'acme', sessionId: randomUUID() };
    await store.open({ ...key, subject: 'ada', teams: ['blue'], by, idleTimeout: 1000 });
    return key;
  }
  const turnOf = (turnId = randomUUID()) => ({ turnId, prompt: 'What?', receivedAt: Date.now(), by });
  const begin = (key: { tenant: string; sessionId: string }, turn: ReturnType<typeof turnOf>, number: number) =>
    store.beginTurn(key, { turn, number, historyTurns: 6, events: startedEvents(key, turn, number, by) });
  const finished = (key: { tenant: string; sessionId: string }, turn: ReturnType<typeof turnOf>): FinishInput => ({
    ...key,
    turn,
    by,
    status: 'completed',
    error: null,
    generation: {
      outcome: 'completed',
      answer: 'That.',
      usage: { promptTokens: 3, completionTokens: 2 },
      startedAt: Date.now(),
      firstToken: 1,
      model: 5,
    },
  });

  it('owes the events of an opened session once, and says who opened it by which request', async () => {
    const key = await openSession();
    await store.open({ ...key, subject: 'ada', teams: ['blue'], by, idleTimeout: 1000 });
    const events = await owed();
    assert.deepEqual(
      events.map(({ topic, key: name }) => `${topic} ${name}`),
      [`audit.session acme/${key.sessionId}`, `session.lifecycle acme/${key.sessionId}`],
    );
    const audit = readEvent('audit.session', events[0]?.value);
    assert.deepEqual([audit.tenant, audit.actor, audit.requestId], ['acme', by.actor, 'request-1']);
    const lifecycle = readEvent('session.lifecycle', events[1]?.value);
    assert.deepEqual(lifecycle.data, { sessionId: key.sessionId, owner: 'ada', teams: ['blue'] });
  });

  it('owes the start, the end and the usage of a turn once each, however often they are repeated', async () => {
    const key = await openSession();
    await summary();
    const turn = turnOf();
    const begun = await begin(key, turn, 1);
    assert.deepEqual([begun.turn.status, begun.tries], ['running', 1]);
    await store.finishTurn(finished(key, turn));
    await store.finishTurn(finished(key, turn));
    assert.equal((await begin(key, turn, 2)).turn.status, 'completed');
    assert.deepEqual(await summary(), [
      `audit.session acme/${key.sessionId} turn.started`,
      `audit.session acme/${key.sessionId} turn.ended`,
      `usage.tokens acme/${key.sessionId} tokens.used`,
    ]);
  });

  it('owes what a turn used: by which provider, at what cost, in which times', async () => {
    const key = await openSession();
    const turn = turnOf();
    await begin(key, turn, 1);
    await summary();
    const done = finished(key, turn);
    const used = {
      ...{ promptTokens: 5, completionTokens: 2, costMicros: 41, modelName: 'assistant', provider: 'claude' },
      ...{ queue: null, reasons: ['slm/soma-tiny: timeout'] },
    };
    assert.ok(done.generation !== null);
    await store.finishTurn({ ...done, team: 'blue', generation: { ...done.generation, used } });
    const { data } = readEvent('usage.tokens', (await owed())[1]?.value);
    const { platform, total, ...rest } = data as { platform: number; total: number };
    assert.deepEqual(rest, {
      ...{
        sessionId: key.sessionId,
        turnId: turn.turnId,
        subject: by.actor.id,
        persona: by.actor.client,
        team: 'blue',
      },
      ...used,
      ...{ model: 5, firstToken: 1, lane: 'interactive', outcome: 'completed' },
    });
    assert.ok(total >= 0 && platform === Math.max(0, total - 5));
  });

  const ends = [
    ['failed', 'GenerationFailed', ['failed']],
    ['failed', 'BudgetExceeded', ['refused']],
    ['cancelled', undefined, []],
  ] as const;
  for (const [status, failure, outcomes] of ends) {
    it(`a turn that has ${status}${failure ? ` by ${failure}` : ''} without an answer: ${outcomes.join() || 'no use'}`, async () => {
      const key = await openSession();
      const turn = turnOf();
      await begin(key, turn, 1);
      await summary();
      await store.finishTurn({ ...finished(key, turn), status, generation: null, ...(failure && { failure }) });
      const uses = (await owed()).filter(({ topic }) => topic === 'usage.tokens');
      const told = uses.map(({ value }) => readEvent('usage.tokens', value).data as Record<string, unknown>);
      assert.deepEqual(
        told.map(({ outcome, promptTokens }) => [outcome, promptTokens]),
        outcomes.map((outcome) => [outcome, 0]),
      );
    });
  }

  it('an attempt that a newer one has followed ends nothing', async () => {
    const key = await openSession();
    const turn = turnOf();
    await begin(key, turn, 1);
    await begin(key, turn, 2);
    await summary();
    await assert.rejects(store.finishTurn({ ...finished(key, turn), attempt: 1 }), { name: 'Superseded' });
    assert.deepEqual(await summary(), []);
    assert.equal((await store.finishTurn({ ...finished(key, turn), attempt: 2 })).status, 'completed');
    assert.equal(
      (await store.finishTurn({ ...finished(key, turn), attempt: 1 })).status,
      'completed',
      'it keeps its end',
    );
    assert.equal((await summary()).length, 2);
  });

  it('owes nothing of a turn in a session that is not there', async () => {
    await assert.rejects(begin({ tenant: 'acme', sessionId: randomUUID() }, turnOf(), 1));
    assert.deepEqual(await summary(), []);
  });

  it('loses the event together with its action, and the action together with its event', async () => {
    const key = { tenant: 'acme', sessionId: randomUUID() };
    await sql`alter table outbox rename to outbox_away`.execute(db.untenanted);
    await assert.rejects(store.open({ ...key, subject: 'ada', idleTimeout: 1000 }), { code: '42P01' });
    await sql`alter table outbox_away rename to outbox`.execute(db.untenanted);
    assert.equal(
      await db.of('acme').selectFrom('session').select('id').where('id', '=', key.sessionId).executeTakeFirst(),
      undefined,
    );
  });

  it('does not count an attempt that a halt stopped, and says that the turn starts again', async () => {
    const key = await openSession();
    const turn = turnOf();
    for (const number of [1, 2, 3]) {
      assert.equal((await begin(key, turn, number)).tries, 1, `attempt ${number}`);
      await store.noteHalt(key, turn.turnId, number);
    }
    assert.equal((await begin(key, turn, 9)).tries, 1);
    assert.equal((await begin(key, turn, 9)).tries, 1, 'the same attempt again is no further one');
    assert.equal((await begin(key, turn, 10)).tries, 2, 'one that failed counts');
    const events = await db
      .of('acme')
      .selectFrom('session_event')
      .select('type')
      .where('turn_id', '=', turn.turnId)
      .orderBy('seq')
      .execute();
    const [first, ...others] = events.map(({ type }) => type);
    assert.equal(first, 'turn.started');
    assert.ok(others.length > 0 && others.every((type) => type === 'turn.restarted'));
    await summary();
  });

  it('owes the end of a session once, to whoever closed it', async () => {
    const key = await openSession();
    await summary();
    await store.close({ ...key, reason: 'idle', by });
    await store.close({ ...key, reason: 'client', by });
    const events = await owed();
    assert.deepEqual(
      events.map(({ topic, value }) => `${topic} ${value.type}`),
      ['audit.session session.closed', 'session.lifecycle session.closed'],
    );
    const closed = readEvent('audit.session', events[0]?.value);
    assert.deepEqual([closed.actor.kind, closed.data], ['system', { sessionId: key.sessionId, reason: 'idle' }]);
  });
});
