/**
 * How fast events that wait in Kafka get into ClickHouse: `node tests/bench/analytics-drain.ts [events] [program …]`.
 * A program is `services/analytics/testing/ingest.ts` of this checkout or of another one; with two of them the ratio of
 * both is printed, of time and of processor time, which other load on the machine does not change. Needs no platform.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus, loadavg } from 'node:os';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, usageEvent } from '@somagent/analytics/testing/events.ts';
import { ingestEnvironment, ingestProgram } from '@somagent/analytics/testing/ingestion.ts';
import { startWarehouse } from '@somagent/analytics/testing/warehouse.ts';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { KafkaProducer } from '@somagent/kit';
import { processorTime } from './processor-time.ts';

const [asked = '100000', ...given] = process.argv.slice(2);
const count = Number(asked);
const programs = given.length === 0 ? [ingestProgram] : given.map((path) => resolve(path));
/** Rows that are stored before the clock starts: the programs and the engine are warm then. */
const warm = Math.floor(count / 5);

/** Time between two questions how far it is, milliseconds: a question costs the engine as much as hundreds of rows. */
const asking = 250;

/** What one program took for the events after the first {@link warm}. */
interface Drained {
  readonly seconds: number;
  /** Seconds of processor time of the program and of the engine. */
  readonly program: number;
  readonly engine: number;
}

async function fill(kafka: TestEventKafka): Promise<void> {
  const producer = new KafkaProducer(await kafka.variables('orchestrator'), { clientId: 'orchestrator' });
  for (let sent = 0; sent < count; sent += 2000) {
    await producer.send(Array.from({ length: 2000 }, (_, place) => messageOf(usageEvent(sent + place))));
  }
  await producer.close();
}

async function drain(kafka: TestEventKafka, program: string): Promise<Drained> {
  const store = await startWarehouse();
  const env = await ingestEnvironment(kafka, store);
  const child = spawn(process.execPath, [program], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${program} did not start`);
  const stored = async () => {
    const [row] = await store.warehouse.rows<{ rows: number }>('select count() as rows from analytics.usage');
    return row?.rows ?? 0;
  };
  const until = async (rows: number) => {
    for (const deadline = Date.now() + 300_000; (await stored()) < rows; await sleep(asking))
      if (Date.now() > deadline) throw new Error(`${await stored()} of ${rows} rows were stored within 5 minutes`);
    return [performance.now() / 1000, await processorTime(pid), await processorTime(store.server.pid)] as const;
  };
  try {
    const [began, programBefore, engineBefore] = await until(warm);
    const left = count - (await stored());
    const [ended, programAfter, engineAfter] = await until(count);
    const share = (count - warm) / Math.max(1, left);
    return {
      seconds: (ended - began) * share,
      program: (programAfter - programBefore) * share,
      engine: (engineAfter - engineBefore) * share,
    };
  } finally {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
    await store.stop();
  }
}

const kafka = await startEventKafka();
try {
  await fill(kafka);
  const results: Drained[] = [];
  for (const program of programs) {
    const result = await drain(kafka, program);
    results.push(result);
    const rows = count - warm;
    const micros = (seconds: number) => `${((seconds / rows) * 1e6).toFixed(0)} µs`;
    console.log(`${program}: ${Math.round(rows / result.seconds)} rows/s, load ${loadavg()[0]?.toFixed(1)}`);
    console.log(`  processor time of a row: program ${micros(result.program)}, engine ${micros(result.engine)}`);
  }
  const [first, last] = [results[0], results.at(-1)];
  if (first && last && first !== last) {
    const both = ({ program, engine }: Drained) => program + engine;
    console.log(
      `${cpus().length} cores; the last takes 1/${(first.seconds / last.seconds).toFixed(1)} of the first's time and ` +
        `1/${(both(first) / both(last)).toFixed(1)} of its processor time ` +
        `(program 1/${(first.program / last.program).toFixed(1)}, engine 1/${(first.engine / last.engine).toFixed(1)})`,
    );
  }
} finally {
  await kafka.stop();
}
