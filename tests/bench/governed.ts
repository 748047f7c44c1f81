/**
 * CPU and latency of a governed request, beside what is usually written and beside LiteLLM's proxy:
 * `node tests/bench/governed.ts [seconds]`. Real servers of their own on loopback; the platform need not run.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildLoad, type Load, load, readingLoad, type Server, startServer } from './governed/load.ts';
import {
  cpuOf,
  type ModelFiles,
  type Process,
  pidsOf,
  startLiteLlm,
  startModel,
  startOpa,
} from './governed/processes.ts';
import { startWorld, type World } from './governed/world.ts';

const seconds = Number(process.argv[2] ?? 10);

const foreign = ({ url, pid, stop }: Process): Server => ({ url, stop, cpu: () => cpuOf(pid) });

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
    const latency = `p50 ${run.p50.toFixed(1)} ms, p99 ${run.p99.toFixed(1)} ms`;
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

function chatLoad(token: string, caFile: string): Omit<Load, 'rate'> {
  const question = { model: 'soma-tiny', max_tokens: 4, messages: [{ role: 'user', content: 'What is a session?' }] };
  const request = {
    method: 'POST' as const,
    path: '/v1/chat/completions',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(question),
  };
  return { connections: 4, requests: [request], caFile, others: async () => 0 };
}

async function besideNaive(world: World, file: string, folder: string): Promise<void> {
  const governed = await startServer('server.ts', [file], join(folder, 'governed.log'));
  const rates = [1000, 2000, 3000, 0];
  await measure('governed', governed, readingLoad(world, sumOf('openfga', 'postgres', 'java')), rates);
  const { counted, rss } = await governed.usage();
  console.log(`governed: verdicts ${JSON.stringify(counted)}, ${(rss / 2 ** 20).toFixed(0)} MiB`);
  await governed.stop();
  const opa = await startOpa(world.config.policySources);
  try {
    const naive = await startServer('naive.ts', [file, opa.url], join(folder, 'naive.log'));
    await measure('naive', naive, readingLoad(world, sumOf('openfga', 'opa')), [200, 400, 0]);
    await naive.stop();
  } finally {
    await opa.stop();
  }
}

async function besideLiteLlm(world: World, file: string, folder: string): Promise<void> {
  const key = randomUUID();
  const files: ModelFiles = { folder, tlsDirectory: world.config.tlsDirectory, key };
  const model = await startModel(files);
  try {
    const rates = [10, 20];
    await measure('model alone', foreign(model), chatLoad(key, world.caFile), rates);
    const governed = await startServer('server.ts', [file, model.url, key], join(folder, 'chat.log'));
    await measure('governed chat', governed, chatLoad(world.tokens[0] ?? '', world.caFile), rates);
    await governed.stop();
    const liteLlm = await startLiteLlm(files, model.url);
    await measure('LiteLLM', foreign(liteLlm), chatLoad(key, world.caFile), rates);
    await liteLlm.stop();
  } finally {
    await model.stop();
  }
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-bench-'));
  await buildLoad();
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
