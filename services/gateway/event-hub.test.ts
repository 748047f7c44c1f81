import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { createLogger, type TenantDatabase } from '@somagent/kit';
import { endNoticeOf, parseEndNotice, parseNotice } from '@somagent/orchestrator/contract.ts';
import { type Database, openDatabase } from '@somagent/orchestrator/database.ts';
import { migrate } from '@somagent/orchestrator/migrations.ts';
import { SessionStore } from '@somagent/orchestrator/session-store.ts';
import { sql } from 'kysely';
import pg from 'pg';
import { EventHub } from './event-hub.ts';

describe('the end of a turn, announced by a real Postgres', () => {
  const folder = mkdtempSync(join(tmpdir(), 'hub-'));
  let postgres: TestPostgres;
  let db: TenantDatabase<Database>;
  let store: SessionStore;
  let hub: EventHub;

  before(async () => {
    postgres = await startPostgres();
    const admin = await postgres.connect('postgres');
    await admin.query(`create role sessions login password 'sessions'`);
    await admin.query('create database sessions owner sessions');
    await admin.end();
    const { host, port, ca } = postgres.server;
    const files = { username: 'sessions', password: 'sessions', 'ca.crt': ca ?? '' };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const login = { user: 'sessions', password: 'sessions', database: 'sessions', ssl: { ca: ca ?? '' } };
    db = openDatabase(new pg.Pool({ host, port, ...login, max: 4 }).on('error', () => undefined));
    await migrate(db.untenanted);
    store = new SessionStore(db);
    const config = { PGHOST: host, PGPORT: port, PGDATABASE: 'sessions', PG_CREDENTIALS_DIR: folder, PG_POOL_SIZE: 1 };
    hub = new EventHub(
      { ...config, PG_CA_FILE: join(folder, 'ca.crt') },
      createLogger({ service: 'gateway', level: 'silent' }),
    );
    await hub.start();
  });
  after(async () => {
    await hub?.stop();
    await db?.destroy();
    await postgres?.stop();
    rmSync(folder, { recursive: true });
  });

  const running = async (key: { tenant: string; sessionId: string }, turnId: string) => {
    const turn = { turnId, prompt: 'What?', receivedAt: Date.now() };
    await store.beginTurn(key, { turn, number: 1, historyTurns: 6, events: [] });
    return { ...key, turn, status: 'completed', error: null, generation: null } as const;
  };

  it('tells who follows another channel of each notice, and of each new connection, on which some may be missing', async () => {
    const heard: (string | undefined)[] = [];
    const { host, port } = postgres.server;
    const follower = new EventHub(
      {
        ...{ PGHOST: host, PGPORT: port, PGDATABASE: 'sessions', PG_CREDENTIALS_DIR: folder, PG_POOL_SIZE: 1 },
        PG_CA_FILE: join(folder, 'ca.crt'),
      },
      createLogger({ service: 'gateway', level: 'silent' }),
    );
    follower.follow('other_news', (payload) => heard.push(payload));
    await follower.start();
    await sql`select pg_notify('other_news', 'acme'), pg_notify('nobodys', 'globex')`.execute(db.untenanted);
    while (heard.length < 2) await sleep(5);
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen other_news'`.execute(
      db.untenanted,
    );
    while (heard.length < 3) await sleep(20);
    assert.deepEqual(heard, [undefined, 'acme', undefined]);
    await follower.stop();
  });

  it('wakes who waits for that turn when its end is stored, not sooner, and nobody else', async () => {
    const key = { tenant: 'acme', sessionId: randomUUID() };
    const [turnId, other] = [randomUUID(), randomUUID()];
    await store.open({ ...key, subject: 'ada', idleTimeout: 1000 });
    const stop = new AbortController();
    const woken: string[] = [];
    const first = hub.ended({ ...key, turnId }, stop.signal).then(() => woken.push('first'));
    const second = hub.ended({ ...key, turnId: other }, stop.signal).then(() => woken.push('second'));
    const stranger = hub.ended({ tenant: 'globex', sessionId: key.sessionId, turnId }, stop.signal);
    const end = await running(key, turnId);
    await store.appendText(key, turnId, 1, 'That');
    await sleep(100);
    assert.deepEqual(woken, [], 'tokens are not the end');
    await store.finishTurn(end);
    await first;
    await sleep(100);
    assert.deepEqual(woken, ['first']);
    stop.abort();
    await Promise.all([second, stranger]);
    assert.equal(hub.size, 0, 'nobody waits any more');
  });

  it('an announcement is no notice of an event, so that older gateways pass it by', () => {
    const end = { tenant: 'acme', sessionId: randomUUID(), turnId: randomUUID() };
    assert.deepEqual(parseEndNotice(endNoticeOf(end)), end);
    assert.equal(parseNotice(endNoticeOf(end)), undefined);
    assert.equal(parseEndNotice('acme/session/12'), undefined);
  });
});
