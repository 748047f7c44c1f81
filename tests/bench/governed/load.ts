import { type ChildProcess, execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { startProgress } from '../../../cluster/progress.ts';
import { buildToolchain, toolFamilies, toolPath } from '../../../cluster/toolchain.ts';
import type { Usage } from './reporting.ts';
import type { World } from './world.ts';

/** A server under test. */
export interface Server {
  readonly url: string;
  /** User and system time so far, microseconds. */
  cpu(): Promise<number>;
  stop(): Promise<void>;
}

/** A server under test that is ours. */
export interface NodeServer extends Server {
  usage(): Promise<Usage>;
}

/** Starts a program of this folder. @param env besides that of this process */
export async function startServer(
  file: string,
  args: readonly string[],
  logFile: string,
  env: Readonly<Record<string, string>> = {},
): Promise<NodeServer> {
  const child = fork(join(import.meta.dirname, file), args, {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    env: { ...process.env, ...env },
  });
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

/** One request, of which many are sent. */
export interface Request {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** What is asked of a server, and how often. */
export interface Load {
  /** Requests per second, evenly spread, whether earlier ones are answered or not; 0 takes what the server gives. */
  readonly rate: number;
  /** At once, where the rate is 0. */
  readonly connections: number;
  readonly requests: readonly Request[];
  readonly caFile: string;
  /** Whose processor time counts beside the server's, microseconds so far. */
  readonly others: () => Promise<number>;
}

/** One run of a server under load. */
export interface Run {
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

/** Builds what asks: vegeta, which keeps a rate and counts the wait of a late request too. */
export const buildLoad = (): Promise<void> =>
  buildToolchain(
    startProgress(),
    toolFamilies.filter(({ name }) => name === 'vegeta'),
  );

/** Opening connections is not what is measured, seconds. */
const opening = 2;

/** Asks a server for some seconds, after a moment in which connections are opened. */
export async function load(server: Server, given: Load, time: number): Promise<Run> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-load-'));
  try {
    const answers = attack(folder, server.url, given, opening + time);
    await sleep(opening * 1000);
    const [cpu, asked, began] = [await server.cpu(), await given.others(), Date.now()];
    const counted = (await answers).filter(({ sent }) => sent >= began);
    const latencies = counted.map(({ latency }) => latency).sort((a, b) => a - b);
    const quantile = (share: number) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
    const answered = counted.filter(({ code }) => code === 200).length;
    return {
      perSecond: answered / time,
      p50: quantile(0.5),
      p99: quantile(0.99),
      cpu: ((await server.cpu()) - cpu) / answered,
      others: ((await given.others()) - asked) / answered,
      failed: counted.length - answered,
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** One answer, as vegeta tells it. */
interface Answer {
  /** When its request was sent, milliseconds of `Date.now`. */
  readonly sent: number;
  /** From then until it was read, the wait for a connection included, milliseconds. */
  readonly latency: number;
  readonly code: number;
}

async function attack(
  folder: string,
  url: string,
  { rate, connections, requests, caFile }: Load,
  time: number,
): Promise<readonly Answer[]> {
  const [targets, results, answers] = ['targets', 'results', 'answers'].map((file) => join(folder, file));
  const lines = requests.map((request) => JSON.stringify(targetOf(url, request)));
  await writeFile(targets ?? '', lines.join('\n'), { mode: 0o600 });
  const run = promisify(execFile);
  await run(toolPath('vegeta'), [
    ...['attack', '-format=json', `-targets=${targets}`, `-output=${results}`, `-root-certs=${caFile}`, '-http2=false'],
    ...[`-rate=${rate}`, `-duration=${time}s`, `-max-body=0`, `-connections=${connections}`],
    ...[
      `-max-connections=${connections}`,
      `-workers=${connections}`,
      `-max-workers=${rate === 0 ? connections : 1000}`,
    ],
  ]);
  await run(toolPath('vegeta'), ['encode', '-to=csv', `-output=${answers}`, results ?? '']);
  const rows = (await readFile(answers ?? '', 'utf8')).trim().split('\n');
  return rows.map((row) => {
    const [sent, code, latency] = row.split(',').map(Number);
    return { sent: (sent ?? 0) / 1e6, code: code ?? 0, latency: (latency ?? 0) / 1e6 };
  });
}

/** A request in vegeta's format. Source: https://github.com/tsenart/vegeta#json-format */
function targetOf(base: string, { method, path, headers, body }: Request) {
  const header = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]]));
  return { method, url: `${base}${path}`, header, ...(body && { body: Buffer.from(body).toString('base64') }) };
}

/** Requests that read a session, of every tenant of the world. */
export function readingLoad({ tokens, sessions, caFile }: World, others: () => Promise<number>): Omit<Load, 'rate'> {
  const requests = tokens.map((token, index) => ({
    method: 'GET' as const,
    path: `/v1/sessions/${sessions[index]}`,
    headers: { authorization: `Bearer ${token}` },
  }));
  return { connections: 16, requests, caFile, others };
}
