/**
 * Turns of sessions through the gateway, one after another in each of several sessions at once: what the client waits
 * for, split into the model's part and the platform's. Loopback only, bounded in turns and in time.
 * `node tests/bench/session.ts [--turns=40] [--concurrency=1,10,50] [--pause=0] [--json]`
 * Each session takes at least two turns, whatever `--turns` says, and rests `--pause` milliseconds after each.
 */
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Timings, Turn } from '@somagent/orchestrator/contract.ts';
import { address, call, tokenOf } from '../support/session-api.ts';

const mostTurns = 400;
const mostSessions = 64;
/** Milliseconds. */
const longestPause = 10_000;
/** Fewer of each session would measure only its start. */
const leastTurnsOfSession = 2;
/** Time after which a stage asks no more turns, milliseconds. */
const stageLimit = 120_000;
const client = 'acme-agent';
const prompts = ['What is a session?', 'What is a region?', 'What is a tenant?', 'Tell me about the platform.'];

/** One answered turn, milliseconds. */
interface Sample {
  /** From the client's request to the end of the answer. */
  readonly total: number;
  readonly timings: Timings;
}

/** Milliseconds. */
interface Spread {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** The figures of one concurrency. */
export interface Stage {
  readonly sessions: number;
  readonly turns: number;
  readonly errors: readonly string[];
  readonly turnsPerSecond: number;
  /** What the client waits for. */
  readonly total: Spread;
  /** From the request to the model until its last token. */
  readonly model: Spread;
  /** From the request to the model until its first token. */
  readonly firstToken: Spread;
  /** The client's total without the model: all that the platform and the way to it cost. */
  readonly platform: Spread;
  /** The part of `platform` before the generation began. */
  readonly queue: Spread;
}

/** Asks `turns` turns in `sessions` sessions at once, after one unmeasured turn in each. @param pause milliseconds */
export async function measureStage(sessions: number, turns: number, pause = 0): Promise<Stage> {
  const token = await tokenOf(client);
  const opened = await Promise.all(Array.from({ length: sessions }, () => open(token)));
  const samples: Sample[] = [];
  const errors: string[] = [];
  const began = performance.now();
  let left = turns;
  const askInTurn = async (id: string): Promise<void> => {
    while (left > 0 && performance.now() - began < stageLimit) {
      left -= 1;
      await ask(token, id, left).then(
        (sample) => samples.push(sample),
        (error: Error) => errors.push(error.message),
      );
      await sleep(pause);
    }
  };
  await Promise.all(opened.map(askInTurn));
  const seconds = (performance.now() - began) / 1000;
  await Promise.all(opened.map((id) => call(`/v1/sessions/${id}`, { method: 'DELETE', token })));
  const spread = (of: (sample: Sample) => number) => spreadOf(samples.map(of));
  return {
    sessions,
    turns: samples.length,
    errors,
    turnsPerSecond: samples.length / seconds,
    total: spread(({ total }) => total),
    model: spread(({ timings }) => timings.model),
    firstToken: spread(({ timings }) => timings.firstToken ?? timings.model),
    platform: spread(({ total, timings }) => total - timings.model),
    queue: spread(({ timings }) => timings.queue),
  };
}

async function open(token: string): Promise<string> {
  const { status, body } = await call('/v1/sessions', { method: 'POST', token, body: { prompt: prompts[0] } });
  if (status !== 201) throw new Error(`no session: status ${status} ${JSON.stringify(body)}`);
  return String(body.id);
}

async function ask(token: string, id: string, index: number): Promise<Sample> {
  const began = performance.now();
  const prompt = prompts[index % prompts.length];
  const { status, body } = await call<Turn>(`/v1/sessions/${id}/turns`, { method: 'POST', token, body: { prompt } });
  const total = performance.now() - began;
  if (status === 200 && body.timings !== null) return { total, timings: body.timings };
  throw new Error(`status ${status}: ${JSON.stringify(body)}`);
}

/** The median, and the values that 95 and 99 of 100 do not exceed; NaN of nothing. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

/** A load on anything but this machine is refused: the figures would be the network's, and the load a stranger's. */
function requireLoopback(): void {
  for (const url of [address('SOMA_GATEWAY_URL', 'gatewayUrl'), address('SOMA_ISSUER_URL', 'issuerUrl')]) {
    if (['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname)) continue;
    throw new Error(`${url} is not on this machine: the benchmark loads loopback addresses only`);
  }
}

function bounded(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new Error(`${name} is ${text}; allowed: a whole number from ${least} to ${most}`);
}

/** One stage after the other; nothing else should load the machine. */
export async function sessionBenchmark(
  turns: number,
  concurrencies: readonly number[],
  pause = 0,
): Promise<readonly Stage[]> {
  requireLoopback();
  const stages: Stage[] = [];
  for (const sessions of concurrencies) {
    stages.push(await measureStage(sessions, Math.max(turns, leastTurnsOfSession * sessions), pause));
  }
  return stages;
}

const columns = ['total', 'model', 'firstToken', 'platform', 'queue'] as const;

/** The figures as a table, milliseconds as `p50 / p95 / p99`, and every error. */
export function tableOf(stages: readonly Stage[]): string {
  const head = ['sessions', 'turns', 'errors', 'turns/s', ...columns];
  const rows = stages.map((stage) => [
    `${stage.sessions}`,
    `${stage.turns}`,
    `${stage.errors.length}`,
    stage.turnsPerSecond.toFixed(1),
    ...columns.map((column) =>
      [stage[column].p50, stage[column].p95, stage[column].p99].map((value) => value.toFixed(0)).join(' / '),
    ),
  ]);
  const line = (cells: readonly string[]) => cells.map((cell) => cell.padStart(20)).join('');
  return [...[head, ...rows].map(line), ...stages.flatMap(({ errors }) => errors.map((error) => `  ${error}`))].join(
    '\n',
  );
}

/** Reads the command line, measures and prints. @returns whether every turn was answered. */
export async function main(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      turns: { type: 'string', default: '40' },
      concurrency: { type: 'string', default: '1,10,50' },
      pause: { type: 'string', default: '0' },
      json: { type: 'boolean', default: false },
    },
  });
  const turns = bounded('--turns', values.turns, 1, mostTurns);
  const concurrencies = values.concurrency.split(',').map((one) => bounded('--concurrency', one, 1, mostSessions));
  const pause = bounded('--pause', values.pause, 0, longestPause);
  const load = loadavg().map((value) => value.toFixed(1));
  const stages = await sessionBenchmark(turns, concurrencies, pause);
  if (values.json) console.log(JSON.stringify({ load, stages }));
  else
    console.log(`${tableOf(stages)}\nmilliseconds as p50 / p95 / p99; load of the machine before: ${load.join(' ')}`);
  return stages.every(({ errors, turns: answered }) => errors.length === 0 && answered > 0);
}

if (import.meta.main && !(await main(process.argv.slice(2)))) process.exitCode = 1;
