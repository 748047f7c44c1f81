/**
 * CPU and latency of a governed request, beside what is usually written and beside LiteLLM's proxy:
 * `node tests/bench/governed.ts [seconds]`. Real servers of their own on loopback; the platform need not run.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import autocannon from 'autocannon';
import {
  cpuOf,
  type ModelFiles,
  type Process,
  pidsOf,
  startLiteLlm,
  startModel,
  startOpa,
} from './governed/processes.ts';
import type { Usage } from './governed/reporting.ts';
import { startWorld, type World } from './governed/world.ts';

const seconds = Number(process.argv[2] ?? 10);
const here = join(import.meta.dirname, 'governed');

/** A server under test. */
interface Server {
  readonly url: string;
  /** User and system time so far, microseconds. */
  cpu(): Promise<number>;
  stop(): Promise<void>;
}

interface NodeServer extends Server {
  usage(): Promise<Usage>;
}

async function startServer(file: string, args: readonly string[], logFile: string): Promise<NodeServer> {
  const child = fork(join(here, file), args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  child.stdout?.pipe(createWriteStream(logFile));
  const { port } = await answerOf<{ port: number }>(child);
  const usage = async () => {
    const answer = answerOf<Usage>(child);
    child.send('usage');
    return answer;
  };
  return {
    url: `https://127.0.0.1:${port}`,
    usage,
    cpu: async () => (await usage()).cpu,
    stop: async () => {
      const ended = once(child, 'exit');
      child.disconnect();
      await ended;
    },
  };
}

function answerOf<Message>(child: ChildProcess): Promise<Message> {
  return new Promise((resolve, reject) => {
    const failed = (code: number | null) => reject(new Error(`the server has ended with ${code}`));
    child.once('exit', failed);
    child.once('message', (message) => {
      child.off('exit', failed);
      resolve(message as Message);
    });
  });
}

const foreign = ({ url, pid, stop }: Process): Server => ({ url, stop, cpu: () => cpuOf(pid) });

interface Load {
  /** Requests per second; 0 takes what the server gives. */
  readonly rate: number;
  readonly connections: number;
  readonly requests: autocannon.Request[];
  readonly ca: Buffer;
  /** Whose processor time counts beside the server's, microseconds so far. */
  readonly others: () => Promise<number>;
}

/** One run of a server under load. */
interface Run {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** Of the server process, microseconds per request. */
  readonly cpu: number;
  /** Of the servers that it asks, microseconds per request. */
  readonly others: number;
  readonly failed: number;
}

async function load(server: Server, { rate, connections, requests, ca, others }: Load, time: number): Promise<Run> {
  const [cpu, asked] = [await server.cpu(), await others()];
  const result = await autocannon({
    url: server.url,
    connections,
    duration: time,
    requests,
    tlsOptions: { ca },
    ...(rate > 0 && { overallRate: rate }),
  });
  const answered = result['2xx'];
  return {
    perSecond: answered / result.duration,
    p50: result.latency.p50,
    p99: result.latency.p99,
    cpu: ((await server.cpu()) - cpu) / answered,
    others: ((await others()) - asked) / answered,
    failed: result.non2xx + result.errors + result.timeouts,
  };
}

async function measure(
  name: string,
  server: Server,
  given: Omit<Load, 'rate'>,
  rates: readonly number[],
): Promise<void> {
  // Until the code is compiled the figures would be of the compiler.
  await load(server, { ...given, rate: rates[0] ?? 0 }, Math.min(8, seconds));
  for (const rate of rates) {
    const run = await load(server, { ...given, rate }, seconds);
    const asked = rate === 0 ? 'as fast as it goes' : `${rate}/s asked`;
    const latency = `p50 ${run.p50} ms, p99 ${run.p99} ms`;
    const cpu = `CPU ${run.cpu.toFixed(0)} µs each (and ${run.others.toFixed(0)} µs in the servers it asks)`;
    console.log(`${name}: ${asked}: ${run.perSecond.toFixed(0)}/s, ${latency}, ${cpu}, ${run.failed} failed`);
  }
}

const sumOf =
  (...programs: readonly string[]) =>
  async () => {
    const used = await Promise.all(programs.flatMap(pidsOf).map(cpuOf));
    return used.reduce((sum, each) => sum + each, 0);
  };

function readingLoad({ tokens, sessions }: World, ca: Buffer, others: () => Promise<number>): Omit<Load, 'rate'> {
  const requests = tokens.map((token, index) => ({
    method: 'GET' as const,
    path: `/v1/sessions/${sessions[index]}`,
    headers: { authorization: `Bearer ${token}` },
  }));
  return { connections: 16, requests, ca, others };
}

function chatLoad(token: string, ca: Buffer): Omit<Load, 'rate'> {
  const question = { model: 'soma-tiny', max_tokens: 4, messages: [{ role: 'user', content: 'What is a session?' }] };
  const request = {
    method: 'POST' as const,
    path: '/v1/chat/completions',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(question),
  };
  return { connections: 4, requests: [request], ca, others: async () => 0 };
}

async function besideNaive(world: World, file: string, folder: string): Promise<void> {
  const ca = await readFile(world.caFile);
  const governed = await startServer('server.ts', [file], join(folder, 'governed.log'));
  const rates = [1000, 2000, 3000, 0];
  await measure('governed', governed, readingLoad(world, ca, sumOf('openfga', 'postgres', 'java')), rates);
  const { counted, rss } = await governed.usage();
  console.log(`governed: verdicts ${JSON.stringify(counted)}, ${(rss / 2 ** 20).toFixed(0)} MiB`);
  await governed.stop();
  const opa = await startOpa(world.config.policySources);
  try {
    const naive = await startServer('naive.ts', [file, opa.url], join(folder, 'naive.log'));
    await measure('naive', naive, readingLoad(world, ca, sumOf('openfga', 'opa')), [200, 400, 0]);
    await naive.stop();
  } finally {
    await opa.stop();
  }
}

async function besideLiteLlm(world: World, file: string, folder: string): Promise<void> {
  const key = randomUUID();
  const files: ModelFiles = { folder, tlsDirectory: world.config.tlsDirectory, key };
  const ca = await readFile(world.caFile);
  const model = await startModel(files);
  try {
    const rates = [10, 20];
    await measure('model alone', foreign(model), chatLoad(key, ca), rates);
    const governed = await startServer('server.ts', [file, model.url, key], join(folder, 'chat.log'));
    await measure('governed chat', governed, chatLoad(world.tokens[0] ?? '', ca), rates);
    await governed.stop();
    const liteLlm = await startLiteLlm(files, model.url);
    await measure('LiteLLM', foreign(liteLlm), chatLoad(key, ca), rates);
    await liteLlm.stop();
  } finally {
    await model.stop();
  }
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-bench-'));
  const world = await startWorld();
  try {
    const file = join(folder, 'config.json');
    await writeFile(file, JSON.stringify(world.config), { mode: 0o600 });
    await besideNaive(world, file, folder);
    await besideLiteLlm(world, file, folder);
  } finally {
    await world.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

await main();
