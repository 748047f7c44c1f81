/**
 * What the gateway adds to a model: `node tests/bench/chat.ts [requests]`. The same requests go to llama.cpp's server
 * directly and through the gateway, in turns, over HTTPS; real servers of their own, the platform need not run.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fetchTrusting } from '@somagent/kit';
import type { Question, Started, Told } from './chat/server.ts';
import type { Steps } from './chat/steps.ts';

const requests = Number(process.argv[2] ?? 400);
const perRound = 20;

type Server = Started['gateway'] & { readonly name: string; readonly fetch: typeof fetch };

/** Milliseconds of each request. */
interface Times {
  readonly first: number[];
  readonly total: number[];
  /** Processor time of gateway and the way to the model together, microseconds. */
  cpu: number;
}

function answerOf<Answer>(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Error('the server has ended'));
    child.once('exit', failed);
    child.once('message', (answer) => {
      child.off('exit', failed);
      resolve(answer as Answer);
    });
  });
}

function question<Answer>(child: ChildProcess, asked: Question): Promise<Answer> {
  const answer = answerOf<Answer>(child);
  child.send(asked);
  return answer;
}

async function ask({ url, token, fetch }: Server, stream: boolean, times?: Times): Promise<void> {
  const asked = performance.now();
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      ...{ model: 'soma-own', max_tokens: 8, temperature: 0, stream },
      messages: [{ role: 'user', content: 'What is a session?' }],
    }),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  let first: number | undefined;
  for await (const _ of response.body ?? []) first ??= performance.now() - asked;
  times?.first.push(first ?? 0);
  times?.total.push(performance.now() - asked);
}

const quantile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
const shown = (values: readonly number[]): string =>
  [0.5, 0.95, 0.99].map((share) => quantile(values, share).toFixed(2)).join(' / ');

async function measure(child: ChildProcess, servers: readonly Server[], stream: boolean): Promise<void> {
  for (const server of servers) for (let index = 0; index < 60; index += 1) await ask(server, stream);
  await question<Told[]>(child, 'told');
  await question<Steps[]>(child, 'steps');
  const times = servers.map((): Times => ({ first: [], total: [], cpu: 0 }));
  for (let round = 0; round < requests / perRound; round += 1) {
    // In turns: what else the machine does falls on both.
    for (const [index, server] of servers.entries()) {
      const mine = times[index] as Times;
      const before = await question<number>(child, 'cpu');
      for (let count = 0; count < perRound; count += 1) await ask(server, stream, mine);
      mine.cpu += (await question<number>(child, 'cpu')) - before;
    }
  }
  const told = await question<Told[]>(child, 'told');
  console.log(`\n${stream ? 'streamed' : 'whole'}, ${requests} requests each, milliseconds p50 / p95 / p99`);
  for (const [index, { name }] of servers.entries()) {
    const { first, total, cpu } = times[index] as Times;
    const each = `CPU ${(cpu / total.length).toFixed(0)} µs each`;
    console.log(`${name.padEnd(20)} total ${shown(total)}  first byte ${shown(first)}  ${each}`);
  }
  const [direct, through] = times as [Times, Times];
  const [all, first] = [
    quantile(through.total, 0.5) - quantile(direct.total, 0.5),
    quantile(through.first, 0.5) - quantile(direct.first, 0.5),
  ];
  console.log(
    `difference at p50     total ${all.toFixed(2)}  first byte ${first.toFixed(2)}  CPU ${((through.cpu - direct.cpu) / requests).toFixed(0)} µs each`,
  );
  const counted = `all but the model in the process of the gateway (${told.length} usage events)`;
  console.log(`${counted}: ${shown(told.map(({ platform }) => platform))}`);
  showSteps(await question<Steps[]>(child, 'steps'));
}

/** Where the time goes in the process of the gateway. */
function showSteps(requests: readonly Steps[]): void {
  const names = Object.keys(requests[0] ?? {});
  const own = names.filter((name) => !name.startsWith('the model'));
  console.log(`steps of ${requests.length} requests, milliseconds p50 / p95 / p99`);
  for (const name of names) console.log(`  ${name.padEnd(36)} ${shown(requests.map((steps) => steps[name] ?? 0))}`);
  const sums = requests.map((steps) => own.reduce((sum, name) => sum + (steps[name] ?? 0), 0));
  console.log(`  ${'all but the model'.padEnd(36)} ${shown(sums)}`);
}

const child = fork(join(import.meta.dirname, 'chat', 'server.ts'), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
try {
  const { gateway, model } = await answerOf<Started>(child);
  const servers = [
    { ...model, name: 'llama.cpp directly', fetch: fetchTrusting(model.caFile) },
    { ...gateway, name: 'through the gateway', fetch: fetchTrusting(gateway.caFile) },
  ];
  for (const stream of [false, true]) await measure(child, servers, stream);
} finally {
  const ended = once(child, 'exit');
  child.disconnect();
  await ended;
  process.exit();
}
