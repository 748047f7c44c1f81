/**
 * Measures one client in a process of its own: `node measure.ts <client> <scenario> <topic>`, with the variables of a
 * connection to Kafka. Prints the figures as one line of JSON.
 */
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { kafkaVariables, readConfig } from '@somagent/kit';
import { z } from 'zod';
import { type BenchClient, type BenchMessage, type ClientName, clients } from './clients.ts';

/** How much is measured. */
export const sizes = {
  /** Bytes of a value. */
  value: 512,
  /** Messages of a request. */
  batch: 500,
  throughput: 30_000,
  latency: 400,
  /** The kill: messages of a request, pause between two, and duration, milliseconds. */
  kill: { batch: 10, pause: 25, before: 3000, after: 18_000 },
} as const;

const keys = 64;
const text = 'x'.repeat(sizes.value);
const message = (number: number): BenchMessage => {
  const value = `${number} `;
  return { key: `key-${number % keys}`, value: value + text.slice(value.length) };
};
const batchOf = (from: number, count: number) => Array.from({ length: count }, (_, index) => message(from + index));
const numberOf = (value: string): number => Number.parseInt(value, 10);

/** What a process has used since the function was made. */
function usage() {
  const before = process.cpuUsage();
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss());
  }, 20);
  return () => {
    clearInterval(timer);
    const { user, system } = process.cpuUsage(before);
    return { cpuMs: (user + system) / 1000, rssMiB: Math.max(peak, process.memoryUsage.rss()) / 2 ** 20 };
  };
}

async function produce(client: BenchClient, topic: string): Promise<object> {
  const producer = await client.producer();
  await producer.send(topic, batchOf(0, sizes.batch));
  const used = usage();
  const began = performance.now();
  for (let from = sizes.batch; from < sizes.throughput; from += sizes.batch) {
    await producer.send(topic, batchOf(from, sizes.batch));
  }
  const seconds = (performance.now() - began) / 1000;
  const { cpuMs, rssMiB } = used();
  await producer.close();
  const count = sizes.throughput - sizes.batch;
  return { perSecond: count / seconds, cpuUs: (cpuMs * 1000) / count, rssMiB };
}

async function consume(client: BenchClient, topic: string): Promise<object> {
  const done = Promise.withResolvers<void>();
  let count = 0;
  let began = 0;
  let used = usage();
  const consumer = await client.consumer(topic, topic, () => {
    if (count === 0) {
      began = performance.now();
      used();
      used = usage();
    }
    count += 1;
    if (count === sizes.throughput) done.resolve();
  });
  await done.promise;
  const seconds = (performance.now() - began) / 1000;
  const { cpuMs, rssMiB } = used();
  await consumer.close();
  return { perSecond: count / seconds, cpuUs: (cpuMs * 1000) / count, rssMiB };
}

async function latency(client: BenchClient, topic: string): Promise<object> {
  const producer = await client.producer();
  const samples: number[] = [];
  for (let number = 0; number < sizes.latency; number += 1) {
    const began = performance.now();
    await producer.send(topic, [message(number)]);
    if (number >= sizes.latency / 10) samples.push(performance.now() - began);
  }
  await producer.close();
  samples.sort((a, b) => a - b);
  const at = (share: number) => samples[Math.floor(samples.length * share)];
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

/** The longest time between two events. */
class Gap {
  #last: number | undefined;
  longest = 0;

  event(): void {
    const now = performance.now();
    if (this.#last !== undefined) this.longest = Math.max(this.longest, now - this.#last);
    this.#last = now;
  }
}

async function kill(client: BenchClient, topic: string): Promise<object> {
  const [producer, received, acknowledged] = [await client.producer(), new Gap(), new Gap()];
  const consumer = await client.consumer(topic, topic, () => received.event());
  const [acked, pending] = [[] as number[], new Set<Promise<void>>()];
  let errors = 0;
  const send = (from: number): void => {
    const sent = producer.send(topic, batchOf(from, sizes.kill.batch)).then(
      () => {
        acknowledged.event();
        acked.push(from);
      },
      () => {
        errors += 1;
      },
    );
    pending.add(sent);
    void sent.then(() => pending.delete(sent));
  };
  let next = 0;
  const sendUntil = async (end: number) => {
    for (; performance.now() < end; next += sizes.kill.batch) {
      send(next);
      await sleep(sizes.kill.pause);
    }
  };
  await sendUntil(performance.now() + sizes.kill.before);
  console.log('kill');
  for await (const line of createInterface({ input: process.stdin })) if (line === 'killed') break;
  await sendUntil(performance.now() + sizes.kill.after);
  await Promise.all(pending);
  const last = next;
  await Promise.race([producer.close(), sleep(5000)]);
  await Promise.race([consumer.close(), sleep(5000)]);
  return { sent: last, acked, errors, ackGapMs: acknowledged.longest, readGapMs: received.longest };
}

/** Reads everything that is there and says which numbers came, in the order of each partition. */
async function read(client: BenchClient, topic: string): Promise<object> {
  const values: number[] = [];
  let last = performance.now();
  const consumer = await client.consumer(topic, `${topic}.check`, (value) => {
    values.push(numberOf(value));
    last = performance.now();
  });
  while (values.length === 0 || performance.now() - last < 3000) await sleep(100);
  await consumer.close();
  return { values };
}

const scenarios = { produce, consume, latency, kill, read } as const;

/** What is measured. */
export type Scenario = keyof typeof scenarios;

if (import.meta.main) {
  const [name = '', scenario = '', topic = ''] = process.argv.slice(2);
  const config = readConfig(z.object(kafkaVariables));
  const figures = await scenarios[scenario as Scenario](clients[name as ClientName](config), topic);
  console.log(JSON.stringify(figures));
  process.exit(0);
}
