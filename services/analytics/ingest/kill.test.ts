import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { KafkaProducer } from '@somagent/kit';
import { messageOf, opened, turnEnded, usageEvent, verdict } from '../testing/events.ts';
import { ingestEnvironment, ingestProgram } from '../testing/ingestion.ts';
import { startWarehouse, type TestWarehouse } from '../testing/warehouse.ts';
import { eventTables } from '../warehouse/migrations.ts';
import { database } from '../warehouse/warehouse.ts';

// More of both by hand: ANALYTICS_KILLS=50 ANALYTICS_EVENTS=20000 node --test services/analytics/ingest/kill.test.ts
const kills = Number(process.env.ANALYTICS_KILLS ?? 3);
const count = Number(process.env.ANALYTICS_EVENTS ?? 2000);
let kafka: TestEventKafka;
let store: TestWarehouse;
before(async () => {
  [kafka, store] = await Promise.all([startEventKafka(), startWarehouse()]);
});
after(() => Promise.all([kafka?.stop(), store?.stop()]));

const usages = Array.from({ length: count }, (_, place) => usageEvent(place));
const others = Array.from({ length: Math.floor(count / 10) }, (_, place) => [
  turnEnded(place, 'acme', 'completed'),
  verdict(place, 'acme', true, 200),
  opened(place, 'globex'),
]).flat();

/** A process of the service's own way from Kafka into ClickHouse. */
async function start(replay: 'yes' | 'no' = 'no'): Promise<ChildProcess> {
  const env = {
    ...(await ingestEnvironment(kafka, store)),
    // Small blocks and no pauses, so that there are many points to die at.
    INGEST_BATCH: String(randomInt(50, 400)),
    INGEST_PACE_MS: '1',
    INGEST_REPLAY: replay,
  };
  return spawn(process.execPath, [ingestProgram], { env, stdio: ['ignore', 'ignore', 'inherit'] });
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

async function total(): Promise<number> {
  const counts = eventTables.map((table) => `select count() as rows from ${database}.${table}`);
  const [row] = await store.warehouse.rows<{ rows: number }>(
    `select sum(rows) as rows from (${counts.join(' union all ')})`,
  );
  return row?.rows ?? 0;
}

async function until(done: () => Promise<boolean>, seconds: number, what: string): Promise<void> {
  for (const deadline = Date.now() + seconds * 1000; !(await done()); await sleep(50)) {
    assert.ok(Date.now() < deadline, `not within ${seconds} s: ${what}; ${await total()} rows`);
  }
}

/** What must be there, from the source itself. */
const truth = {
  rows: count,
  ids: count,
  prompt: usages.reduce((sum, { value }) => sum + (value.data as { promptTokens: number }).promptTokens, 0),
  completion: usages.reduce((sum, { value }) => sum + (value.data as { completionTokens: number }).completionTokens, 0),
};

async function found() {
  const [row] = await store.warehouse.rows<typeof truth>(
    `select count() as rows, uniqExact(event_id) as ids, sum(prompt_tokens) as prompt, sum(completion_tokens) as completion
    from ${database}.usage`,
  );
  return row;
}

test(`killed ${kills} times and replayed three times, every event is there once`, { timeout: 1_800_000 }, async () => {
  const producer = new KafkaProducer(await kafka.variables('orchestrator'), { clientId: 'orchestrator' });
  const all = [...usages, ...others].map(messageOf);
  // Half of them wait, the others come while processes die.
  await producer.send(all.slice(0, all.length / 2));
  const step = Math.ceil(all.length / 2 / Math.max(1, kills));
  for (let kill = 0, from = all.length / 2; kill < kills; kill += 1, from += step) {
    const child = await start();
    await producer.send(all.slice(from, from + step));
    const before = await total();
    // Some die while they join, some in the middle of a block, some after it.
    if (kill % 3 !== 0 && before < all.length) await until(async () => (await total()) > before, 120, 'progress');
    await sleep(randomInt(0, 300));
    await end(child, 'SIGKILL');
  }
  const survivor = await start();
  await until(async () => (await total()) >= all.length, 180, 'all events');
  await end(survivor, 'SIGTERM');
  assert.deepEqual(await found(), truth);
  for (let replay = 1; replay <= 3; replay += 1) {
    const child = await start('yes');
    // A marker at the end of every partition: when they are there, everything before them was offered again.
    const markers = Array.from({ length: 12 }, (_, place) => messageOf(opened(1000 * replay + place, 'acme')));
    await producer.send(markers);
    await until(async () => (await total()) >= all.length + replay * markers.length, 180, `replay ${replay}`);
    await end(child, 'SIGTERM');
    assert.deepEqual(await found(), truth, `replay ${replay}`);
  }
  assert.equal(await total(), all.length + 3 * 12);
  await producer.close();
});
