import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import autocannon from 'autocannon';
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

/** What is asked of a server, and how often. */
export interface Load {
  /** Requests per second; 0 takes what the server gives. */
  readonly rate: number;
  readonly connections: number;
  readonly requests: autocannon.Request[];
  readonly ca: Buffer;
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

/** Asks a server for some seconds. */
export async function load(
  server: Server,
  { rate, connections, requests, ca, others }: Load,
  time: number,
): Promise<Run> {
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

/** Requests that read a session, of every tenant of the world. */
export function readingLoad(
  { tokens, sessions }: World,
  ca: Buffer,
  others: () => Promise<number>,
): Omit<Load, 'rate'> {
  const requests = tokens.map((token, index) => ({
    method: 'GET' as const,
    path: `/v1/sessions/${sessions[index]}`,
    headers: { authorization: `Bearer ${token}` },
  }));
  return { connections: 16, requests, ca, others };
}
