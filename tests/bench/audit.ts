/**
 * The audit log on a Postgres of its own on loopback, with fsync and TLS: durable events per second through the log as
 * the consumer uses it, the same row at a time, and the latency of proofs.
 * `node tests/bench/audit.ts [--events=60000] [--leaves=1000000] [--proofs=1000] [--json]`
 */
import { randomInt, randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { AuditLog } from '../../services/audit/log/audit-log.ts';
import { EntryReader } from '../../services/audit/log/entries.ts';
import { leafOfMessage } from '../../services/audit/log/leaf.ts';
import { StoredTree } from '../../services/audit/log/tree.ts';
import { verifyConsistency, verifyInclusion } from '../../services/audit/merkle/index.ts';
import { startAuditDatabase, type TestAuditDatabase } from '../../services/audit/testing/database.ts';
import { verdictEvent } from '../../services/audit/testing/events.ts';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '60000' },
    leaves: { type: 'string', default: '1000000' },
    proofs: { type: 'string', default: '1000' },
    json: { type: 'boolean', default: false },
  },
});
/** Durable events per second that are wanted, and the longest proof, milliseconds. */
const marks = { rate: 15_000, proof: 100 };
const batch = 4000;
const topic = 'verdict.decisions';

/** Messages as they come from Kafka: bytes of JSON, each event another one. */
function messages(count: number, first: number) {
  const [before = '', after = ''] = JSON.stringify(verdictEvent('acme', 'REQUEST').value).split(
    /"id":"[^"]{36}"(?=,"type")/,
  );
  return Array.from({ length: count }, (_, place) => ({
    topic,
    partition: 0,
    offset: BigInt(first + place),
    value: Buffer.from(`${before}"id":"${randomUUID()}"${after.replaceAll('REQUEST', `r-${first + place}`)}`),
  }));
}

interface Cpu {
  /** Seconds of this process. */
  readonly own: number;
  /** Seconds of all processes of Postgres. */
  readonly postgres: number;
}

/** User and system time of the processes whose command or parent names the folder. */
function cpu(folder: string): Cpu {
  const own = process.cpuUsage();
  const stats = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        const ticks = Number(fields[11]) + Number(fields[12]);
        return [{ pid, parent: fields[1] ?? '', command, ticks, reaped: Number(fields[13]) + Number(fields[14]) }];
      } catch {
        return [];
      }
    });
  const server = stats.find(({ command }) => command.includes('postgres') && command.includes(folder));
  const family = stats.filter(({ pid, parent }) => pid === server?.pid || parent === server?.pid);
  const ticks = family.reduce((sum, each) => sum + each.ticks, server?.reaped ?? 0);
  return { own: (own.user + own.system) / 1e6, postgres: ticks / 100 };
}

/** Appends as the consumer does; the next batch is prepared while Postgres stores the one before. */
async function throughLog(audit: TestAuditDatabase, some: ReturnType<typeof messages>, size: number) {
  const log = new AuditLog(audit.database);
  const before = cpu(audit.postgres.folder);
  const began = performance.now();
  let running: Promise<unknown> = Promise.resolve();
  for (let from = 0; from < some.length; from += size) {
    const part = some.slice(from, from + size);
    const leaves = part.map(leafOfMessage);
    await running;
    running = log.append(leaves, { [`${topic}/0`]: String((part.at(-1)?.offset ?? 0n) + 1n) });
  }
  await running;
  const seconds = (performance.now() - began) / 1000;
  const after = cpu(audit.postgres.folder);
  const perEvent = (from: number, to: number) => Math.round(((to - from) / some.length) * 1e7) / 10;
  return {
    events: some.length,
    perSecond: Math.round(some.length / seconds),
    cpuMicrosecondsPerEvent: {
      service: perEvent(before.own, after.own),
      postgres: perEvent(before.postgres, after.postgres),
    },
  };
}

const quantile = (sorted: readonly number[], q: number) =>
  Math.round((sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0) * 10) / 10;

/** Proofs one after the other, each verified; the time is until the proof is there. */
async function proofs(audit: TestAuditDatabase, count: number) {
  const [tree, entries] = [new StoredTree(audit.database), new EntryReader(audit.database)];
  const size = await tree.size();
  const root = await tree.root(size);
  const took = { inclusion: [] as number[], consistency: [] as number[] };
  for (let number = 0; number < count; number += 1) {
    const index = randomInt(size);
    const [hash] = await entries.hashes(index, index + 1);
    let began = performance.now();
    const inclusion = await tree.inclusion(index, size);
    took.inclusion.push(performance.now() - began);
    if (hash === undefined || !verifyInclusion({ index, hash }, { size, root }, inclusion))
      throw new Error(`leaf ${index}`);
    const older = 1 + randomInt(size);
    began = performance.now();
    const consistency = await tree.consistency(older, size);
    took.consistency.push(performance.now() - began);
    const old = { size: older, root: await tree.root(older) };
    if (!verifyConsistency(old, { size, root }, consistency)) throw new Error(`size ${older}`);
  }
  const summary = (times: number[]) => {
    const sorted = times.toSorted((a, b) => a - b);
    return { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) };
  };
  return { leaves: size, milliseconds: { inclusion: summary(took.inclusion), consistency: summary(took.consistency) } };
}

const settings = {
  fsync: 'on',
  synchronous_commit: 'on',
  log_statement: 'none',
  shared_buffers: '256MB',
  max_wal_size: '4GB',
};
const audit = await startAuditDatabase(settings);
try {
  const events = Number(values.events);
  // The order in which variants run must not decide: the slow one is measured in between.
  const first = await throughLog(audit, messages(events, 0), batch);
  const single = await throughLog(audit, messages(1500, events), 1);
  const second = await throughLog(audit, messages(events, events + 1500), batch);
  const best = Math.max(first.perSecond, second.perSecond);
  const filled: number[] = [];
  for (let leaves = 2 * events + 1500; leaves < Number(values.leaves); leaves += 50_000) {
    filled.push((await throughLog(audit, messages(50_000, leaves), batch)).perSecond);
  }
  console.error('the log is filled; now the proofs');
  const proven = await proofs(audit, Number(values.proofs));
  const report = {
    load: loadavg()[0]?.toFixed(1),
    groupCommit: [first, second],
    rowAtATime: single,
    ratio: Math.round((best / single.perSecond) * 10) / 10,
    whileFilling: filled,
    proofs: proven,
  };
  console.log(values.json ? JSON.stringify(report) : JSON.stringify(report, undefined, 2));
  const { inclusion, consistency } = proven.milliseconds;
  const reached = best >= marks.rate && Math.max(inclusion.p99, consistency.p99) <= marks.proof;
  console.log(
    `mark ${marks.rate} events/s, proof ${marks.proof} ms at the 99th percentile: ${reached ? 'reached' : 'missed'}`,
  );
  process.exitCode = reached ? 0 : 1;
} finally {
  await audit.stop();
}
