/**
 * How fast an outbox is relayed: events in a real Postgres (fsync on, TLS), a relay in a process of its own, three real
 * brokers with acks=all. `node tests/bench/outbox.ts [--events=200000] [--bytes=400] [--json]`
 */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startPostgres, type TestPostgres } from '@somagent/bootstrap/testing/postgres.ts';
import { event } from '@somagent/events';
import { startEventKafka } from '@somagent/events/testing.ts';
import {
  appendEvents,
  createLogger,
  createPool,
  type OutboxEvent,
  outboxMigration,
  type PostgresConfig,
} from '@somagent/kit';
import { Kysely, PostgresDialect } from 'kysely';

const { values: flags } = parseArgs({
  options: {
    events: { type: 'string', default: '200000' },
    bytes: { type: 'string', default: '400' },
    json: { type: 'boolean' },
  },
});
const [count, bytes] = [Number(flags.events), Number(flags.bytes)];
if (!(count >= 1000 && count <= 2_000_000)) throw new Error(`--events is ${flags.events}: give 1000 to 2000000`);
if (!(bytes >= 0 && bytes <= 100_000)) throw new Error(`--bytes is ${flags.bytes}: give 0 to 100000`);

/** An event of the platform, with `bytes` more in it that compress as badly as identifiers do. */
const sample = (number: number): OutboxEvent =>
  event('audit.session', 'turn.ended', {
    tenant: 'acme',
    actor: { kind: 'user', id: 'alice', client: 'somagent-cli' },
    requestId: `request-${number}`,
    data: {
      sessionId: `00000000-0000-4000-8000-${String(number % 1000).padStart(12, '0')}`,
      turnId: '00000000-0000-4000-8000-000000000000',
      status: 'failed',
      error: randomBytes(bytes / 2).toString('hex'),
    },
  });

async function prepare(postgres: TestPostgres): Promise<PostgresConfig> {
  await writeFile(join(postgres.folder, 'username'), postgres.superuser.username);
  await writeFile(join(postgres.folder, 'password'), postgres.superuser.password);
  return {
    PGHOST: postgres.server.host,
    PGPORT: postgres.server.port,
    PGDATABASE: 'postgres',
    PG_CREDENTIALS_DIR: postgres.folder,
    PG_CA_FILE: postgres.caFile,
    PG_POOL_SIZE: 2,
  };
}

/** @returns milliseconds of CPU of this process and seconds for all events, a thousand in a transaction */
async function fill(config: PostgresConfig): Promise<number> {
  const pool = createPool(config, createLogger({ service: 'bench', level: 'silent' }));
  const db = new Kysely<Record<never, never>>({ dialect: new PostgresDialect({ pool }) });
  await outboxMigration.up(db);
  const began = performance.now();
  for (let from = 0; from < count; from += 1000) {
    await appendEvents(
      db,
      Array.from({ length: Math.min(1000, count - from) }, (_, index) => sample(from + index)),
    );
  }
  const seconds = (performance.now() - began) / 1000;
  await db.destroy();
  return seconds;
}

interface Relayed {
  readonly events: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  readonly idleMiB: number;
}

/** CPU that the children of this process with that name have used, seconds: the figure that other load can't bend. */
function cpuOf(name: string): number {
  const listing = execFileSync('ps', ['--ppid', String(process.pid), '-o', 'comm=,cputimes='], { encoding: 'utf8' });
  const lines = listing.split('\n').map((line) => line.trim().split(/\s+/));
  return lines.filter(([comm]) => comm === name).reduce((sum, [, seconds]) => sum + Number(seconds), 0);
}

async function relay(variables: object): Promise<Relayed> {
  const program = fileURLToPath(new URL('outbox/relay.ts', import.meta.url));
  const env = Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, String(value)]));
  const child = spawn(process.execPath, ['--no-warnings', program], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  if (code !== 0) throw new Error(`the relay ended with code ${code}`);
  return JSON.parse(output) as Relayed;
}

const postgres = await startPostgres({ fsync: 'on', log_statement: 'none', shared_buffers: '128MB' });
try {
  const kafka = await startEventKafka({ nodes: 3 });
  try {
    const config = await prepare(postgres);
    const filled = await fill(config);
    const brokersBefore = cpuOf('java');
    const result = await relay({ ...config, ...(await kafka.variables('orchestrator')) });
    const perSecond = Math.round(result.events / result.seconds);
    const cpuUs = (result.cpuSeconds * 1e6) / result.events;
    const brokersUs = ((cpuOf('java') - brokersBefore) * 1e6) / result.events;
    const size = JSON.stringify(sample(0).value).length;
    if (flags.json)
      console.log(JSON.stringify({ ...result, perSecond, cpuUs, brokersUs, bytes: size, filledSeconds: filled }));
    else {
      console.log(
        `${result.events} events of ${size} bytes: stored ${Math.round(count / filled)}/s, relayed ${perSecond}/s,`,
      );
      console.log(
        `${cpuUs.toFixed(1)} µs CPU of the relay per event, ${brokersUs.toFixed(1)} µs of three brokers; ${Math.round(result.rssMiB)} MiB at most, ${Math.round(result.idleMiB)} before;`,
      );
      console.log(`load ${loadavg()[0]?.toFixed(1)}`);
    }
  } finally {
    await kafka.stop();
  }
} finally {
  await postgres.stop();
}
