/**
 * Faults while load runs, on the running platform of this machine: Keycloak, OpenFGA and Kafka away, a broker and the
 * Postgres primary killed. Then what clients were told is compared with the audit log: no audited action may be lost,
 * none be there twice. `node tests/bench/faults.ts [--keycloak=300] [--openfga=60] [--kafka=120] [--sessions=3]`
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { parseArgs } from 'node:util';
import { authorityPem } from '../support/session-api.ts';
import { keyMaker, lastingToken } from './faults/callers.ts';
import { type Fault, killedPod, primaryPod, withoutDeployment, withoutStatefulSet } from './faults/faults.ts';
import { type Attempt, type Load, startLoad } from './faults/load.ts';
import { type Balance, balanceOf } from './faults/record.ts';

const identity = 'local-identity';
const data = 'local-data';
/** Load without a fault before the first, and after each, seconds. */
const calm = 15;
/** Time that the log has to take in what was done, seconds. */
const patience = 180;

interface Seconds {
  readonly keycloak: number;
  readonly openfga: number;
  readonly kafka: number;
}

const faultsOf = ({ keycloak, openfga, kafka }: Seconds): readonly Fault[] => [
  withoutDeployment('Keycloak away', identity, 'keycloak', keycloak),
  withoutDeployment('OpenFGA away', identity, 'openfga', openfga),
  killedPod('a broker killed', data, async () => 'kafka-1', 30),
  withoutStatefulSet('Kafka away', data, 'kafka', kafka),
  killedPod('the Postgres primary killed', data, () => primaryPod(data), 30),
];

/** One stretch of the run, from a moment to another of `performance.now()`. */
interface Phase {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

async function phase(name: string, work: () => Promise<unknown>): Promise<Phase> {
  console.log(`${name} …`);
  const from = performance.now();
  await work();
  return { name, from, to: performance.now() };
}

async function inject(fault: Fault): Promise<Phase[]> {
  const away = await phase(fault.name, async () => {
    try {
      await fault.inject();
      await sleep(fault.seconds * 1000);
    } finally {
      await fault.mend();
    }
  });
  return [away, await phase('calm', () => sleep(calm * 1000))];
}

/** Waits until the log has everything, or its time is over. */
async function settled(attempts: readonly Attempt[]): Promise<Balance> {
  const deadline = performance.now() + patience * 1000;
  for (;;) {
    const balance = await balanceOf(attempts);
    const complete = balance.lost.length === 0 && balance.withoutVerdict === 0;
    if (complete || performance.now() > deadline) return balance;
    await sleep(5000);
  }
}

const good = ({ status }: Attempt): boolean => status >= 200 && status < 300;

function row({ name, from, to }: Phase, attempts: readonly Attempt[]): string {
  const own = attempts.filter(({ at }) => at >= from && at < to);
  const per = (kinds: readonly string[]) => {
    const some = own.filter(({ kind }) => kinds.includes(kind));
    const refused = some.filter((one) => !good(one)).map(({ status }) => status);
    const codes = [...new Set(refused)].map((code) => `${code}×${refused.filter((other) => other === code).length}`);
    return `${some.length - refused.length} of ${some.length}${codes.length === 0 ? '' : ` (${codes.join(' ')})`}`;
  };
  const ends = [
    from,
    ...own
      .filter(good)
      .map(({ at, took }) => at + took)
      .toSorted((a, b) => a - b),
    to,
  ];
  const gap = Math.max(...ends.slice(1).map((end, index) => end - (ends[index] ?? end)));
  const cells = [per(['open', 'turn', 'close']), per(['read']), per(['key', 'revoke']), `${(gap / 1000).toFixed(1)} s`];
  return [
    name.padEnd(30),
    `${((to - from) / 1000).toFixed(0)} s`.padStart(6),
    ...cells.map((cell) => cell.padStart(26)),
  ].join('');
}

function report(phases: readonly Phase[], attempts: readonly Attempt[], balance: Balance): string {
  const head = [
    'phase'.padEnd(30),
    'length'.padStart(6),
    ...['session writes', 'reads', 'API keys', 'longest silence'].map((cell) => cell.padStart(26)),
  ];
  return [
    head.join(''),
    ...phases.map((one) => row(one, attempts)),
    `${balance.acknowledged} actions acknowledged: ${balance.lost.length} lost, ${balance.twice.length} twice; ${balance.repeatedEvents} events repeated among ${balance.entries} entries`,
    `${balance.answered} requests answered: ${balance.withoutVerdict} without a verdict`,
    ...[...balance.lost, ...balance.twice].map((name) => `  ${name}`),
  ].join('\n');
}

async function run(load: Load, faults: readonly Fault[]): Promise<Phase[]> {
  const phases: Phase[] = [];
  try {
    phases.push(await phase('calm', () => sleep(calm * 1000)));
    for (const fault of faults) phases.push(...(await inject(fault)));
    return phases;
  } finally {
    await load.stop();
  }
}

const seconds = (name: string, text: string, most: number): number => {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`${name} is ${text}; allowed: a whole number from 1 to ${most}`);
};

/** Injects every fault under load and prints the balance. @returns whether nothing was lost and nothing is there twice */
export async function main(args: readonly string[]): Promise<boolean> {
  const option = (value: string) => ({ type: 'string' as const, default: value });
  const options = { keycloak: option('300'), openfga: option('60'), kafka: option('120'), sessions: option('3') };
  const { values } = parseArgs({ args: [...args], options });
  const faults = faultsOf({
    keycloak: seconds('--keycloak', values.keycloak, 360),
    openfga: seconds('--openfga', values.openfga, 120),
    kafka: seconds('--kafka', values.kafka, 180),
  });
  setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
  const load = startLoad({
    token: lastingToken(),
    sessions: seconds('--sessions', values.sessions, 10),
    pause: 300,
    keys: keyMaker('acme'),
  });
  const phases = await run(load, faults);
  const balance = await settled(load.attempts);
  console.log(report(phases, load.attempts, balance));
  return balance.acknowledged > 0 && balance.lost.length + balance.twice.length + balance.repeatedEvents === 0;
}

if (import.meta.main && !(await main(process.argv.slice(2)))) process.exitCode = 1;
