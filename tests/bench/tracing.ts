/**
 * What tracing costs a governed request: `node tests/bench/tracing.ts [seconds]`. The governed server of governed.ts, off,
 * with no trace kept, and with every trace kept and handed to a real OpenTelemetry Collector, in turns.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { startCollector } from '@somagent/bootstrap/testing/otel-collector.ts';
import { asTenant, inChildSpan, inSpanSync, isTracing } from '@somagent/kit';
import { buildLoad, load, type NodeServer, readingLoad, startServer } from './governed/load.ts';
import { startWorld } from './governed/world.ts';

const seconds = Number(process.argv[2] ?? 10);
const rounds = 3;

/** What a request does for tracing while that is off, nanoseconds: the relation, the policy, the tenant, three looks. */
async function costWhileOff(): Promise<number> {
  const times = 200_000;
  const run = async (traced: boolean) => {
    const begun = process.cpuUsage();
    for (let time = 0; time < times; time += 1) {
      if (!traced) await work();
      else if (!isTracing()) await asTenant('acme', tracedWork, 'request');
    }
    const { user, system } = process.cpuUsage(begun);
    return ((user + system) * 1000) / times;
  };
  const work = async () => answer();
  const answer = () => 1;
  const tracedWork = async () => {
    await inChildSpan('relation', {}, work);
    return inSpanSync('policy', {}, answer);
  };
  await run(true);
  return (await run(true)) - (await run(false));
}

async function main(): Promise<void> {
  console.log(`while off: ${(await costWhileOff()).toFixed(0)} ns of processor time a request`);
  await buildLoad();
  const folder = await mkdtemp(join(tmpdir(), 'somagent-bench-'));
  const [world, collector] = [await startWorld(), await startCollector()];
  const servers: Record<string, NodeServer> = {};
  try {
    const file = join(folder, 'config.json');
    await writeFile(file, JSON.stringify(world.config), { mode: 0o600 });
    const on = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_EXPORTER_OTLP_CERTIFICATE: collector.caFile };
    const kinds = { off: {}, 'none kept': { ...on, OTEL_TRACES_SAMPLER_ARG: '0' }, 'all kept': on };
    for (const [name, env] of Object.entries(kinds)) {
      servers[name] = await startServer('server.ts', [file], join(folder, `${name}.log`), env);
    }
    const given = { ...readingLoad(world, async () => 0), rate: 0 };
    for (const server of Object.values(servers)) await load(server, given, seconds);
    const cpu: Record<string, number[]> = {};
    for (let round = 0; round < rounds; round += 1) {
      for (const [name, server] of Object.entries(servers)) {
        const run = await load(server, given, seconds);
        cpu[name] = [...(cpu[name] ?? []), run.cpu];
        console.log(`${name}: ${run.perSecond.toFixed(0)}/s, CPU ${run.cpu.toFixed(0)} µs each, ${run.failed} failed`);
      }
    }
    const best = (name: string) => Math.min(...(cpu[name] ?? [Number.NaN]));
    for (const name of ['none kept', 'all kept']) {
      console.log(`${name}: ${((best(name) / best('off') - 1) * 100).toFixed(1)} % more CPU than off`);
    }
    console.log(`load of the machine ${loadavg()[0]?.toFixed(0)}, ${collector.spans().length} spans taken`);
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
    await Promise.all([world.stop(), collector.stop()]);
    await rm(folder, { recursive: true, force: true });
  }
}

await main();
