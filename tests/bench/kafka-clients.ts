/**
 * kafkajs beside @platformatic/kafka, as it is and as the kit uses it, on the same three real brokers (TLS, SCRAM, three copies, acks=all, idempotent):
 * throughput, latency, memory, and what happens while a broker is killed. Each figure is measured in a process of its
 * own, the clients in turn, so that figures of one run compare whatever else the machine does.
 * `node tests/bench/kafka-clients.ts [--rounds=3] [--only=produce,consume,latency,kill] [--json]`
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { loadavg } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { KafkaPlan } from '@somagent/events';
import { startEventKafka, type TestEventKafka } from '@somagent/events/testing.ts';
import { type ClientName, clients } from './kafka-clients/clients.ts';
import { type Scenario, sizes } from './kafka-clients/measure.ts';

const names = Object.keys(clients) as readonly ClientName[];
const user = 'bench';
const topicOf = (name: ClientName, purpose: string) => `bench.${names.indexOf(name)}-${purpose}`;

/** A topic and a group of its own for each process, so that none reads what another one left. */
function planOf(rounds: number, replicas: number): KafkaPlan {
  const purposes = [...Array.from({ length: rounds }, (_, round) => `${round}`), 'latency', 'kill'];
  const topics = names.flatMap((name) => purposes.map((purpose) => topicOf(name, purpose)));
  const config = { 'min.insync.replicas': '2' };
  const grant = (type: 'topic' | 'group', name: string) => ({
    user,
    resource: { type, name },
    operations: type === 'topic' ? (['read', 'write'] as const) : (['read'] as const),
  });
  return {
    topics: topics.map((name) => ({ name, partitions: 3, replicas, config })),
    users: [{ name: user }],
    acls: topics.flatMap((name) => [grant('topic', name), grant('group', name), grant('group', `${name}.check`)]),
    schemas: [],
  };
}

type Figures = Readonly<Record<string, number>>;

const program = fileURLToPath(new URL('kafka-clients/measure.ts', import.meta.url));

/** Runs one scenario with one client. @param onKill is called when the scenario asks for the death of a broker */
async function measure<Result>(
  kafka: TestEventKafka,
  name: ClientName,
  scenario: Scenario,
  topic: string,
  onKill?: () => Promise<void>,
): Promise<Result> {
  const child = spawn(process.execPath, ['--no-warnings', program, name, scenario, topic], {
    env: { ...process.env, ...(await kafka.variables(user)) },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit');
  let last = '';
  for await (const line of createInterface({ input: child.stdout })) {
    last = line;
    if (line !== 'kill') continue;
    await onKill?.();
    child.stdin.write('killed\n');
  }
  const [code] = await exit;
  if (code !== 0) throw new Error(`${name} ${scenario} ended with code ${code}`);
  return JSON.parse(last) as Result;
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

function medians(rounds: readonly Figures[]): Figures {
  const figureNames = Object.keys(rounds[0] ?? {});
  return Object.fromEntries(figureNames.map((name) => [name, median(rounds.map((round) => round[name] ?? 0))]));
}

interface Killed {
  readonly sent: number;
  /** First numbers of the requests that were acknowledged. */
  readonly acked: readonly number[];
  readonly errors: number;
  readonly ackGapMs: number;
  readonly readGapMs: number;
}

/** Kills a broker under load, then starts it again and counts what is in the topic. */
async function killBroker(kafka: TestEventKafka, name: ClientName): Promise<Figures> {
  const topic = topicOf(name, 'kill');
  const broker = 1;
  const result = await measure<Killed>(kafka, name, 'kill', topic, () => kafka.kill(broker));
  await kafka.start(broker);
  // One and the same reader checks both.
  const { values } = await measure<{ values: readonly number[] }>(kafka, '@platformatic/kafka', 'read', topic);
  const there = new Set(values);
  const promised = result.acked.flatMap((from) => Array.from({ length: sizes.kill.batch }, (_, index) => from + index));
  return {
    sent: result.sent,
    lost: promised.filter((number) => !there.has(number)).length,
    duplicates: values.length - there.size,
    disordered: disorder(values),
    errors: result.errors,
    ackGapMs: result.ackGapMs,
    readGapMs: result.readGapMs,
  };
}

/** Numbers that came, for the first time, after a higher one of the same key. */
function disorder(values: readonly number[]): number {
  const highest = new Map<number, number>();
  return [...new Set(values)].filter((number) => {
    const key = number % 64;
    const behind = number < (highest.get(key) ?? -1);
    highest.set(key, Math.max(number, highest.get(key) ?? -1));
    return behind;
  }).length;
}

const parts = ['produce', 'consume', 'latency', 'kill'] as const;
/** What can be measured alone; `consume` reads what `produce` has sent. */
type Part = (typeof parts)[number];

/** Figures of one client, as far as they were asked for. */
type Result = Partial<Record<Part, Figures>>;

/** The clients take turns within each round, so that what else the machine does meets all of them. */
async function rate(
  kafka: TestEventKafka,
  rounds: number,
  part: 'produce' | 'consume',
  results: Results,
): Promise<void> {
  const figures = new Map<ClientName, Figures[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, list] of figures) list.push(await measure<Figures>(kafka, name, part, topicOf(name, `${round}`)));
  }
  for (const [name, list] of figures) results[name][part] = medians(list);
}

type Results = Readonly<Record<ClientName, Result>>;

async function compare(kafka: TestEventKafka, rounds: number, asked: ReadonlySet<string>): Promise<Results> {
  const results = Object.fromEntries(names.map((name) => [name, {} as Result])) as Record<ClientName, Result>;
  if (asked.has('produce')) await rate(kafka, rounds, 'produce', results);
  if (asked.has('consume')) await rate(kafka, rounds, 'consume', results);
  for (const name of names) {
    if (asked.has('latency')) results[name].latency = await measure(kafka, name, 'latency', topicOf(name, 'latency'));
    if (asked.has('kill')) results[name].kill = await killBroker(kafka, name);
  }
  return results;
}

const rows: readonly (readonly [string, Part, string])[] = [
  ['produced, messages/s', 'produce', 'perSecond'],
  ['CPU per produced message, µs', 'produce', 'cpuUs'],
  ['memory while producing, MiB', 'produce', 'rssMiB'],
  ['consumed, messages/s', 'consume', 'perSecond'],
  ['CPU per consumed message, µs', 'consume', 'cpuUs'],
  ['memory while consuming, MiB', 'consume', 'rssMiB'],
  ['one message, p50 ms', 'latency', 'p50'],
  ['one message, p95 ms', 'latency', 'p95'],
  ['one message, p99 ms', 'latency', 'p99'],
  ['broker killed: sent', 'kill', 'sent'],
  ['broker killed: acknowledged but lost', 'kill', 'lost'],
  ['broker killed: duplicates', 'kill', 'duplicates'],
  ['broker killed: out of order', 'kill', 'disordered'],
  ['broker killed: requests that failed', 'kill', 'errors'],
  ['broker killed: longest wait for an acknowledgement, ms', 'kill', 'ackGapMs'],
  ['broker killed: longest wait of the reader, ms', 'kill', 'readGapMs'],
];

function table(results: Results): string {
  const number = (value: number) => (value >= 100 ? Math.round(value).toString() : value.toFixed(1));
  const measured = rows.filter(([, part]) => names.every((name) => results[name][part] !== undefined));
  const lines = measured.map(([title, part, figure]) => {
    const cells = names.map((name) => results[name][part]?.[figure] ?? 0);
    const [first = 0, second = 0] = cells;
    const ratio = second === 0 ? '-' : (first / second).toFixed(2);
    return `| ${title} | ${cells.map(number).join(' | ')} | ${ratio} |`;
  });
  const head = `| | ${names.join(' | ')} | ${names.slice(0, 2).join(' : ')} |`;
  return [head, `|---|${names.map(() => '---|').join('')}---|`, ...lines].join('\n');
}

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: parts.join(',') },
    json: { type: 'boolean' },
  },
});
const rounds = Number(flags.rounds);
if (!Number.isInteger(rounds) || rounds < 1 || rounds > 9) {
  throw new Error(`--rounds is ${flags.rounds}: give a whole number from 1 to 9`);
}
const asked = new Set<string>(flags.only.split(','));
const unknown = [...asked].filter((part) => !parts.some((each) => each === part));
if (unknown.length > 0) throw new Error(`--only has ${unknown}: give some of ${parts}`);

// The brokers end with this process, also when it is ended from outside.
process.once('SIGTERM', () => process.exit(143));
const kafka = await startEventKafka({ nodes: 3, plan: (replicas) => planOf(rounds, replicas) });
try {
  const before = loadavg()[0]?.toFixed(1);
  const results = await compare(kafka, rounds, asked);
  if (flags.json) console.log(JSON.stringify(results, null, 2));
  else console.log(`${table(results)}\n\nload ${before} → ${loadavg()[0]?.toFixed(1)}, median of ${rounds} rounds`);
  const { lost = 0, duplicates = 0, disordered = 0 } = results['@somagent/kit'].kill ?? {};
  // What the services use has to pass, whatever its figures are.
  if (lost + duplicates + disordered > 0) process.exitCode = 1;
} finally {
  await kafka.stop();
}
