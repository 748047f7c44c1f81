/**
 * From Kafka to a query: `node tests/bench/analytics.ts [rows per second] [seconds] [program]`; the program is
 * `services/analytics/testing/ingest.ts` of this checkout or of another one. Starts a Kafka, a ClickHouse engine
 * and the service's own process of ingestion; needs no platform. An event's way is timed from its creation until a
 * query by another connection counts it.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { cpus, loadavg } from 'node:os';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, usageEvent } from '@somagent/analytics/testing/events.ts';
import { ingestEnvironment, ingestProgram } from '@somagent/analytics/testing/ingestion.ts';
import { startWarehouse, type TestWarehouse } from '@somagent/analytics/testing/warehouse.ts';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { KafkaProducer, type OutgoingMessage } from '@somagent/kit';

const [rate = 20_000, seconds = 20] = process.argv.slice(2, 4).map(Number);
const program = process.argv[4] === undefined ? ingestProgram : resolve(process.argv[4]);
/** Events leave in portions of this time, milliseconds. */
const portion = 100;

/** How many events were made until when, and how many a query counted when. */
type Mark = readonly [rows: number, at: number];

async function ingest(kafka: TestEventKafka, store: TestWarehouse) {
  const env = await ingestEnvironment(kafka, store);
  const child = spawn(process.execPath, [program], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  return { stop: async () => void (child.kill('SIGTERM') && (await once(child, 'exit'))) };
}

async function counted(store: TestWarehouse): Promise<number> {
  const [row] = await store.warehouse.rows<{ rows: number }>('select count() as rows from analytics.usage');
  return row?.rows ?? 0;
}

/**
 * Messages of new events that cost the machine little to make: what is measured beside it needs the processor. Each is
 * an event that keeps its contract, with an id of its own.
 */
function messageMaker(): (place: number) => OutgoingMessage {
  const templates = Array.from({ length: 1000 }, (_, place) => {
    const made = usageEvent(place);
    const message = messageOf(made);
    return { message, around: message.value.split(made.value.id) };
  });
  return (place) => {
    const { message, around } = templates[place % templates.length] ?? assert.fail('no template');
    const id = randomUUID();
    return { ...message, value: around.join(id), headers: { ...message.headers, id } };
  };
}

/** Sends at the asked rate, or as fast as it goes. */
async function produce(kafka: TestEventKafka, made: Mark[]): Promise<number> {
  const producer = new KafkaProducer(await kafka.variables('orchestrator'), { clientId: 'orchestrator' });
  const size = Math.round((rate * portion) / 1000);
  const make = messageMaker();
  const began = performance.now();
  let sent = made.at(-1)?.[0] ?? 0;
  const until = sent + rate * seconds;
  for (let round = 1; sent < until; round += 1) {
    const messages = Array.from({ length: size }, (_, place) => make(sent + place));
    sent += size;
    made.push([sent, performance.now()]);
    await producer.send(messages);
    await sleep(Math.max(0, began + round * portion - performance.now()));
  }
  await producer.close();
  return performance.now() - began;
}

/** Time of each portion from its creation until a query counts all of it, milliseconds, in order of size. */
function latencies(made: readonly Mark[], seen: readonly Mark[]): readonly number[] {
  return made
    .map(([rows, at]) => (seen.find(([count]) => count >= rows)?.[1] ?? Number.POSITIVE_INFINITY) - at)
    .sort((one, other) => one - other);
}

const at = (sorted: readonly number[], share: number) =>
  Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN);

async function main(): Promise<void> {
  const [kafka, store] = await Promise.all([startEventKafka(), startWarehouse()]);
  const way = await ingest(kafka, store);
  try {
    const made: Mark[] = [];
    const seen: Mark[] = [];
    const watching = new AbortController();
    const watch = (async () => {
      for (; !watching.signal.aborted; await sleep(50)) seen.push([await counted(store), performance.now()]);
    })();
    const took = await produce(kafka, made);
    const total = made.at(-1)?.[0] ?? 0;
    for (const deadline = Date.now() + 120_000; (seen.at(-1)?.[0] ?? 0) < total && Date.now() < deadline; )
      await sleep(50);
    const ended = performance.now();
    watching.abort();
    await watch;
    const sorted = latencies(made, seen);
    const drained = (ended - (made[0]?.[1] ?? 0)) / 1000;
    console.log(`${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)}; ${total} events of usage.tokens`);
    console.log(
      `asked ${rate}/s; sent ${Math.round((total / took) * 1000)}/s; stored ${Math.round(total / drained)}/s`,
    );
    console.log(`event → queryable: p50 ${at(sorted, 0.5)} ms, p95 ${at(sorted, 0.95)} ms, p99 ${at(sorted, 0.99)} ms`);
    const [row] = await store.warehouse.rows<{ rows: number; ids: number }>(
      'select count() as rows, uniqExact(event_id) as ids from analytics.usage',
    );
    console.log(`rows ${row?.rows}, different events ${row?.ids}, sent ${total}`);
    process.exitCode = row?.rows === total && row?.ids === total ? 0 : 1;
  } finally {
    await way.stop();
    await Promise.all([kafka.stop(), store.stop()]);
  }
}

await main();
