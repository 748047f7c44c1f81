/** Relays an outbox until it is empty and prints what that took, as one line of JSON. */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  createLogger,
  createPool,
  KafkaProducer,
  kafkaVariables,
  OutboxRelay,
  postgresVariables,
  readConfig,
} from '@somagent/kit';
import { z } from 'zod';

const config = readConfig(z.object({ ...postgresVariables, ...kafkaVariables }));
const log = createLogger({ service: 'bench', destination: process.stderr });
const pool = createPool(config, log);
const { rows } = await pool.query<{ count: number }>('select count(*)::integer from outbox');
const events = rows[0]?.count ?? 0;
const idle = process.memoryUsage.rss();

const producer = new KafkaProducer(config, { clientId: 'bench' });
const relay = new OutboxRelay({ database: config, sink: producer, log });
let rss = 0;
const began = performance.now();
const before = process.cpuUsage();
relay.start();
while (relay.status.relayed < events) {
  await sleep(5);
  rss = Math.max(rss, process.memoryUsage.rss());
}
const seconds = (performance.now() - began) / 1000;
const { user, system } = process.cpuUsage(before);
await relay.stop();
await producer.close();
await pool.end();
console.log(
  JSON.stringify({
    events,
    seconds,
    cpuSeconds: (user + system) / 1e6,
    rssMiB: rss / 2 ** 20,
    idleMiB: idle / 2 ** 20,
  }),
);
process.exit(0);
