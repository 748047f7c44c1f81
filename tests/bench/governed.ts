/**
 * CPU and latency of a governed request, beside what is usually written: `node tests/bench/governed.ts [seconds]`.
 * Real servers of their own on loopback; the platform need not run.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { opaPath } from '@somagent/policies/bundle/corpus.ts';
import autocannon from 'autocannon';
import type { Usage } from './governed/reporting.ts';
import { startWorld, type World } from './governed/world.ts';

const seconds = Number(process.argv[2] ?? 10);
const connections = 16;
const here = join(import.meta.dirname, 'governed');

/** A server in a process of its own. */
interface Server {
  readonly url: string;
  usage(): Promise<Usage>;
  stop(): Promise<void>;
}

async function startServer(file: string, args: readonly string[], logFile: string): Promise<Server> {
  const child = fork(join(here, file), args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  child.stdout?.pipe(createWriteStream(logFile));
  const [{ port }] = await answer<{ port: number }>(child);
  return {
    url: `https://127.0.0.1:${port}`,
    usage: async () => {
      const usage = answer<Usage>(child);
      child.send('usage');
      return (await usage)[0];
    },
    stop: async () => {
      const ended = once(child, 'exit');
      child.disconnect();
      await ended;
    },
  };
}

async function answer<Message>(child: ChildProcess): Promise<[Message]> {
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`the server has ended with ${code}`);
  });
  ended.catch(() => undefined);
  return Promise.race([once(child, 'message') as Promise<[Message]>, ended]);
}

async function startOpa(sources: string): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  const url = `http://127.0.0.1:${address.port}`;
  const args = ['run', '--server', '--disable-telemetry', '--log-level=error', '--addr', url.slice('http://'.length)];
  const child = spawn(opaPath(), [...args, sources], { stdio: ['ignore', 'ignore', 'inherit'] });
  await waitFor({ name: 'OPA', address: url, fix: 'read its log' }, async () => void (await fetch(`${url}/health`)), {
    seconds: 30,
  });
  return {
    url,
    stop: async () => {
      const ended = once(child, 'exit');
      child.kill();
      await ended;
    },
  };
}

/** One run of a server under load. */
interface Run {
  /** 0 takes what the server gives. */
  readonly rate: number;
  readonly requests: number;
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  /** Of the server process, microseconds per request. */
  readonly cpu: number;
  readonly failed: number;
}

async function load(server: Server, { tokens, sessions, caFile }: World, rate: number, time: number): Promise<Run> {
  const ca = await readFile(caFile);
  const requests = tokens.map((token, index) => ({
    method: 'GET' as const,
    path: `/v1/sessions/${sessions[index]}`,
    headers: { authorization: `Bearer ${token}` },
  }));
  const before = await server.usage();
  const result = await autocannon({
    url: server.url,
    connections,
    duration: time,
    requests,
    tlsOptions: { ca },
    ...(rate > 0 && { overallRate: rate }),
  });
  const after = await server.usage();
  return {
    rate,
    requests: result['2xx'],
    perSecond: result['2xx'] / result.duration,
    p50: result.latency.p50,
    p99: result.latency.p99,
    cpu: (after.cpu - before.cpu) / result['2xx'],
    failed: result.non2xx + result.errors + result.timeouts,
  };
}

async function measure(name: string, server: Server, world: World, rates: readonly number[]): Promise<readonly Run[]> {
  await load(server, world, 0, Math.min(5, seconds));
  const runs: Run[] = [];
  for (const rate of rates) {
    const run = await load(server, world, rate, seconds);
    runs.push(run);
    const asked = rate === 0 ? 'as fast as it goes' : `${rate}/s asked`;
    const figures = `p50 ${run.p50} ms, p99 ${run.p99} ms, ${run.cpu.toFixed(0)} µs CPU each, ${run.failed} failed`;
    console.log(`${name}: ${asked}: ${run.perSecond.toFixed(0)}/s, ${figures}`);
  }
  return runs;
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-bench-'));
  const world = await startWorld();
  const file = join(folder, 'config.json');
  await writeFile(file, JSON.stringify(world.config), { mode: 0o600 });
  const opa = await startOpa(world.config.policySources);
  try {
    const governed = await startServer('server.ts', [file], join(folder, 'governed.log'));
    await measure('governed', governed, world, [500, 1000, 2000, 3000, 0]);
    const { counted, rss } = await governed.usage();
    console.log(`governed: verdicts ${JSON.stringify(counted)}, ${(rss / 2 ** 20).toFixed(0)} MiB`);
    await governed.stop();
    const naive = await startServer('naive.ts', [file, opa.url], join(folder, 'naive.log'));
    await measure('naive', naive, world, [100, 200, 400, 0]);
    await naive.stop();
  } finally {
    await opa.stop();
    await world.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

await main();
