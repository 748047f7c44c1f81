/** `node services/clickhouse-front/bench.ts`: inserts, queries, memory and start of the front, by the official client. */
import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import { startClickHouse, type TestClickHouse } from './testing.ts';
import { clientOf, rows } from './testing-clients.ts';

const table = `CREATE TABLE usage (tenant LowCardinality(String), persona LowCardinality(String), model LowCardinality(String),
  time DateTime64(3, 'UTC'), session_id UUID, prompt_tokens UInt32, completion_tokens UInt32, total_ms Float64)
  ENGINE = MergeTree PARTITION BY toDate(time) ORDER BY (tenant, time)`;

const queries = {
  'count of one tenant': "SELECT count() AS n FROM usage WHERE tenant = 't3'",
  'tokens by tenant': 'SELECT tenant, sum(prompt_tokens + completion_tokens) AS n FROM usage GROUP BY tenant',
  'latency by minute': `SELECT toStartOfMinute(time) AS minute, quantiles(0.5, 0.95, 0.99)(total_ms) AS q FROM usage
    WHERE tenant = 't3' GROUP BY minute ORDER BY minute`,
} as const;

const start = Date.parse('2026-01-01T00:00:00Z');

function batch(from: number, count: number) {
  return Array.from({ length: count }, (_, index) => {
    const row = from + index;
    return {
      tenant: `t${row % 20}`,
      persona: `p${row % 7}`,
      model: 'soma-tiny',
      time: new Date(start + row).toISOString().replace('T', ' ').replace('Z', ''),
      session_id: `00000000-0000-4000-8000-${String(row % 5000).padStart(12, '0')}`,
      prompt_tokens: row % 900,
      completion_tokens: row % 300,
      total_ms: (row * 7919) % 4000,
    };
  });
}

const quantile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;

const line = (values: readonly number[]): string =>
  [0.5, 0.95, 0.99].map((share) => `p${share * 100} ${quantile(values, share).toFixed(1)}`).join(', ');

const memory = (server: TestClickHouse): string =>
  readFileSync(`/proc/${server.pid}/status`, 'utf8')
    .split('\n')
    .filter((each) => /^(VmHWM|VmRSS|RssAnon)/.test(each))
    .map((each) => each.replace(/\s+(\d+) kB/, (_, kilobytes) => ` ${Math.round(Number(kilobytes) / 1024)} MiB`))
    .join(', ');

async function insert(client: ClickHouseClient, size: number, total: number, from: number): Promise<void> {
  const batches = Array.from({ length: total / size }, (_, index) => batch(from + index * size, size));
  const times: number[] = [];
  const begun = performance.now();
  for (const [index, values] of batches.entries()) {
    const before = performance.now();
    const clickhouse_settings = { insert_deduplication_token: `${size}-${index}` };
    await client.insert({ table: 'usage', values, format: 'JSONEachRow', clickhouse_settings });
    times.push(performance.now() - before);
  }
  const seconds = (performance.now() - begun) / 1000;
  console.log(`insert ${total} rows by ${size}: ${Math.round(total / seconds)} rows/s; ms per batch: ${line(times)}`);
}

async function ask(client: ClickHouseClient, name: string, query: string): Promise<void> {
  const times: number[] = [];
  for (let run = 0; run < 200; run += 1) {
    const before = performance.now();
    await rows(client, query);
    times.push(performance.now() - before);
  }
  console.log(`${name}: ms ${line(times)}`);
}

const before = performance.now();
const server = await startClickHouse();
try {
  console.log(
    `load ${loadavg()[0]?.toFixed(1)}; start ${Math.round(performance.now() - before)} ms; ${memory(server)}`,
  );
  const [analytics, reader] = await Promise.all([clientOf(server, server.analytics), clientOf(server, server.reader)]);
  await analytics.command({ query: table });
  await insert(analytics, 5_000, 400_000, 0);
  await insert(analytics, 20_000, 1_000_000, 400_000);
  console.log(`after the inserts: ${memory(server)}`);
  for (const [name, query] of Object.entries(queries)) await ask(reader, name, query);
  console.log(`after the queries: ${memory(server)}`);
  await sleep(20_000);
  console.log(`20 s later: ${memory(server)}`);
  await Promise.all([analytics.close(), reader.close()]);
  const ending = performance.now();
  await server.end();
  console.log(`end ${Math.round(performance.now() - ending)} ms`);
  const again = performance.now();
  await server.resume();
  console.log(
    `start with 1.4 million rows ${Math.round(performance.now() - again)} ms; load ${loadavg()[0]?.toFixed(1)}`,
  );
} finally {
  await server.stop();
}
