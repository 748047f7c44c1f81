/**
 * What few events cost: `node tests/bench/analytics-small.ts [rounds]`. Starts a ClickHouse engine and stores, round by
 * round, the eight events of one turn into the four tables, as the service does when little happens. Printed is
 * processor time, of the engine and of the service's part; run it in two checkouts to compare them. Needs no platform.
 */
import { cpus, loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Classifier } from '@somagent/analytics/ingest/classify.ts';
import { Evolution } from '@somagent/analytics/ingest/evolution.ts';
import { Intake } from '@somagent/analytics/ingest/intake.ts';
import { messageOf, opened, turnEnded, usageEvent, verdict } from '@somagent/analytics/testing/events.ts';
import { startWarehouse } from '@somagent/analytics/testing/warehouse.ts';
import { processorTime } from './processor-time.ts';

const rounds = Number(process.argv[2] ?? 100);
const partitions = 3;
const idleSeconds = 10;

/** Events of one turn; its verdicts are of several requests, hence of several partitions. */
const turn = (place: number) => [
  usageEvent(place),
  turnEnded(place, 'acme', 'completed'),
  opened(place, 'acme'),
  ...Array.from({ length: 5 }, (_, request) => verdict(place * 5 + request, 'acme', true, 200)),
];

/** Numbers the messages of each partition. */
function broker() {
  const ends = new Map<string, bigint>();
  return (place: number) =>
    turn(place).map((event, index) => {
      const { topic, key } = event;
      const partition = (topic === 'verdict.decisions' ? place + index : place) % partitions;
      const offset = ends.get(`${topic}/${partition}`) ?? 0n;
      ends.set(`${topic}/${partition}`, offset + 1n);
      return { topic, partition, offset, key, headers: new Map(), value: Buffer.from(messageOf(event).value) };
    });
}

const store = await startWarehouse();
try {
  const { pid } = store.server;
  await sleep(2000);
  const before = await processorTime(pid);
  await sleep(idleSeconds * 1000);
  const idle = ((await processorTime(pid)) - before) / idleSeconds;
  const classifier = new Classifier(new Evolution({ schema: async () => undefined }));
  const intake = new Intake({ warehouse: store.warehouse, classifier, positions: new Map() });
  const messages = broker();
  for (let round = 0; round < 20; round += 1) await intake.offer(messages(round));
  const [engine, own] = [await processorTime(pid), process.cpuUsage()];
  for (let round = 20; round < 20 + rounds; round += 1) await intake.offer(messages(round));
  const { user, system } = process.cpuUsage(own);
  const millis = (((await processorTime(pid)) - engine) * 1000) / rounds;
  console.log(`${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)}; idle engine ${(idle * 1000).toFixed(1)} ms/s`);
  console.log(`a turn: engine ${millis.toFixed(1)} ms, service ${((user + system) / 1000 / rounds).toFixed(1)} ms`);
} finally {
  await store.stop();
}
