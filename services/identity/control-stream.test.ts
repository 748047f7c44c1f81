import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlState } from '@somagent/kit';
import { sql } from 'kysely';
import { Halts } from './halts.ts';
import { Ledger, type Origin } from './ledger.ts';
import { Tenants } from './tenants.ts';
import { quiet } from './testing/database.ts';
import { type Replica, TestService } from './testing/service.ts';

const operator: Origin = { actor: { kind: 'user', id: 'olga', client: 'somagent-cli' }, requestId: 'r-1' };

async function until(what: string, condition: () => boolean, seconds = 10): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await sleep(5);
  }
}

describe('the control feed, over HTTPS from two replicas on a real Postgres', () => {
  let service: TestService;
  let replicas: Replica[];
  let tenants: Tenants;
  let halts: Halts;
  let tokenFile: string;
  const clients: ControlState[] = [];

  before(async () => {
    service = await TestService.start();
    replicas = await Promise.all([service.replica(), service.replica()]);
    const ledger = new Ledger(service.database.database);
    tenants = new Tenants(ledger, service.database.database);
    halts = new Halts(ledger);
    await tenants.put(operator, 'acme', 'Acme');
    tokenFile = await service.workloadFile('gateway');
  });
  after(async () => {
    await Promise.all(clients.map((client) => client.stop()));
    await service.stop();
  });

  function follow(url: string, file = tokenFile): ControlState {
    const client = new ControlState({ url, caFile: service.caFile, tokenFile: file, log: quiet });
    clients.push(client);
    client.start();
    return client;
  }

  it('knows nothing before the first snapshot, and answers every question after it', async () => {
    const client = follow(replicas[0]?.url ?? '');
    assert.equal(client.ready, false);
    assert.equal(client.ageMs, Number.POSITIVE_INFINITY);
    assert.throws(() => client.halted('acme'), /no control state yet/);
    await assert.rejects(client.check(), /no control state yet/);
    await until('a first snapshot', () => client.ready);
    assert.equal(client.halted('acme'), false);
    assert.equal(client.suspended('acme', 'u1'), null);
    assert.equal(client.revoked({ sid: 's', jti: 'j', keyId: 'k' }), false);
    assert.equal(client.training('acme'), 'locked');
    await tenants.suspend(operator, 'acme', 'x');
    await until('the suspension', () => client.suspended('acme', 'u1') === 'tenant');
    await tenants.restore(operator, 'acme', 'x');
    await until('its end', () => client.suspended('acme', 'u1') === null);
  });

  it('tells no change but to workloads that are listed', async () => {
    const stranger = follow(replicas[0]?.url ?? '', await service.workloadFile('stranger'));
    const foreign = follow(replicas[0]?.url ?? '', await service.workloadFile('gateway', 'somagent-audit'));
    const good = follow(replicas[0]?.url ?? '');
    await until('the one that is listed', () => good.ready);
    await sleep(300);
    assert.deepEqual([stranger.ready, foreign.ready], [false, false]);
    await Promise.all([stranger.stop(), foreign.stop()]);
  });

  it('beats while the database confirms the state', async () => {
    const client = follow(replicas[1]?.url ?? '');
    await until('a first snapshot', () => client.ready);
    const ages: number[] = [];
    for (let look = 0; look < 30; look += 1) {
      await sleep(50);
      ages.push(client.ageMs);
    }
    assert.ok(Math.max(...ages) < 1000, `the feed was silent for ${Math.max(...ages)} ms`);
  });

  it('brings each change to 100 clients of both replicas within a second (p99)', { timeout: 60_000 }, async (t) => {
    const many = Array.from({ length: 100 }, (_, at) => follow(replicas[at % 2]?.url ?? ''));
    await until('all clients', () => many.every((client) => client.ready), 30);
    const delays: number[] = [];
    for (let round = 0; round < 20; round += 1) {
      const halted = round % 2 === 0;
      const heard = many.map(
        (client) =>
          new Promise<number>((resolve) => {
            const end = client.onChange(() => {
              if (client.halted('acme') !== halted) return;
              end?.();
              resolve(performance.now());
            });
          }),
      );
      const began = performance.now();
      await (halted ? halts.halt(operator, 'acme', 'x') : halts.resume(operator, 'acme', 'x'));
      delays.push(...(await Promise.all(heard)).map((at) => at - began));
    }
    delays.sort((left, right) => left - right);
    const at = (share: number) => Math.round(delays[Math.floor(delays.length * share)] ?? 0);
    t.diagnostic(
      `change → client, ${delays.length} times: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(0.9999)} ms`,
    );
    assert.equal(delays.length, 2000);
    assert.ok(at(0.99) <= 1000, `p99 is ${at(0.99)} ms`);
    await Promise.all(many.map((client) => client.stop()));
  });

  it('finds a change whose notice was lost', async () => {
    const client = follow(replicas[0]?.url ?? '');
    await until('a first snapshot', () => client.ready);
    // A change without a notice, as when the connection broke in between.
    await sql`update tenant set training = 'unlocked' where tenant = 'acme'`.execute(
      service.database.database.platform,
    );
    await sql`update control set revision = revision + 1`.execute(service.database.database.untenanted);
    await until('the change', () => client.training('acme') === 'unlocked', 3);
  });

  it('falls silent, instead of repeating itself, when the database is away; and comes back', async () => {
    const admin = await service.database.postgres.connect('postgres');
    const client = follow(replicas[0]?.url ?? '');
    await until('a first snapshot', () => client.ready);
    const { revision } = client;
    await admin.query('alter role identity nologin');
    await admin.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = 'identity'`);
    await until('silence', () => client.ageMs > 2500, 10);
    assert.equal(replicas[0]?.feed.fresh, false);
    // What is known stays in force.
    assert.equal(client.revision, revision);
    assert.equal(client.training('acme'), 'unlocked');
    await admin.query('alter role identity login');
    await admin.end();
    await until('the feed', () => client.ageMs < 1000, 10);
    await halts.halt(operator, null, 'x');
    await until('a change', () => client.halted('globex'));
    await halts.resume(operator, null, 'x');
  });

  it('keeps its state when its replica has gone', async () => {
    const [first] = replicas;
    assert.ok(first);
    const client = follow(first.url);
    await until('a first snapshot', () => client.ready);
    await first.stop();
    await until('silence', () => client.ageMs > 1500, 5);
    assert.equal(client.halted('acme'), false);
  });
});
