/**
 * What small inserts cost: `node tests/bench/analytics-small.ts [rounds] [folder of a clickhouse-front …]`.
 */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Classifier } from '@somagent/analytics/ingest/classify.ts';
import { Evolution } from '@somagent/analytics/ingest/evolution.ts';
import { Intake } from '@somagent/analytics/ingest/intake.ts';
import { messageOf, opened, turnEnded, usageEvent, verdict } from '@somagent/analytics/testing/events.ts';
import { startWarehouse } from '@somagent/analytics/testing/warehouse.ts';

const rounds = Number(process.argv[2] ?? 100);
async function threads(pid: number): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const tid of await readdir(`/proc/${pid}/task`)) {
    const stat = await readFile(`/proc/${pid}/task/${tid}/stat`, 'utf8').catch(() => '');
    if (!stat) continue;
    const comm = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    const sched = await readFile(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').catch(() => '0');
    found.set(`${comm}`, (found.get(comm) ?? 0) + Number(sched.split(' ')[0]) / 1e6);
  }
  const all = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
  found.set('=process', (Number(all[11]) + Number(all[12])) * 10);
  return found;
}
function diff(a: Map<string, number>, b: Map<string, number>, per: number) {
  return [...b]
    .map(([n, v]) => [n, (v - (a.get(n) ?? 0)) / per] as const)
    .filter(([, v]) => Math.abs(v) > 0.02)
    .sort((x, y) => y[1] - x[1]);
}
const store = await startWarehouse();
try {
  const pid = store.server.pid;
  await sleep(3000);
  const i0 = await threads(pid);
  await sleep(10_000);
  const i1 = await threads(pid);
  console.log(
    'idle, ms per s',
    diff(i0, i1, 10)
      .map(([n, v]) => `${n} ${v.toFixed(2)}`)
      .join(', '),
  );
  let requests = 0;
  const w = Object.create(store.warehouse) as typeof store.warehouse;
  w.rows = ((...a: [string]) => (requests++, store.warehouse.rows(...a))) as never;
  w.insert = ((...a: [string, never]) => (requests++, store.warehouse.insert(...a))) as never;
  const intake = new Intake({
    warehouse: w,
    classifier: new Classifier(new Evolution({ schema: async () => undefined })),
    positions: new Map(),
  });
  const offsets = new Map<string, bigint>();
  const round = async (place: number) => {
    const events = [
      usageEvent(place),
      turnEnded(place, 'acme', 'completed'),
      opened(place, 'acme'),
      ...Array.from({ length: 5 }, (_, k) => verdict(place * 5 + k, 'acme', true, 200)),
    ];
    await intake.offer(
      events.map((e, k) => {
        const partition = e.topic === 'verdict.decisions' ? k % 3 : place % 3;
        const name = `${e.topic}/${partition}`;
        const offset = offsets.get(name) ?? 0n;
        offsets.set(name, offset + 1n);
        return {
          topic: e.topic,
          partition,
          offset,
          key: e.key,
          headers: new Map(),
          value: Buffer.from(messageOf(e).value),
        };
      }),
    );
  };
  for (let p = 0; p < 20; p++) await round(p);
  requests = 0;
  const m0 = process.cpuUsage();
  const c0 = await threads(pid);
  const t0 = performance.now();
  for (let p = 20; p < 20 + rounds; p++) {
    await round(p);
    if (process.env.PACE) await sleep(Number(process.env.PACE));
  }
  const t1 = performance.now();
  const c1 = await threads(pid);
  const m1 = process.cpuUsage(m0);
  console.log(
    `round: ${requests / rounds} requests, wall ${((t1 - t0) / rounds).toFixed(1)} ms, client cpu ${((m1.user + m1.system) / 1000 / rounds).toFixed(2)} ms`,
  );
  console.log(
    'engine, ms per round',
    diff(c0, c1, rounds)
      .map(([n, v]) => `${n} ${v.toFixed(2)}`)
      .join(', '),
  );
} finally {
  await store.stop();
}
