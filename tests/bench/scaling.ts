/**
 * Load that comes and goes, and what scales with it: workers of sessions by the scaler, replicas of the model by Ray.
 * Counts every turn that was asked and every turn that the platform has: none may be lost while pods come and go.
 * `node tests/bench/scaling.ts [--sessions=40] [--seconds=90] [--calm=240] [--json]`; loopback only.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import type { Look } from '@somagent/scaler/scaler.ts';
import { get, kubectl } from '../support/kubectl.ts';
import { address, call, callPatiently, tokenOf } from '../support/session-api.ts';
import { eventually } from '../support/wait.ts';

const client = 'acme-agent';
const namespace = 'local-services';
const mostSessions = 64;

/** One moment of a run. */
export interface Moment {
  /** Since the beginning, seconds. */
  readonly at: number;
  /** Workers that were asked for, and those that are ready. */
  readonly wanted: number;
  readonly ready: number;
  /** Replicas of the model; null while the scaler can't tell. */
  readonly replicas: number | null;
  /** Tasks that wait in Temporal, and turns at the model. */
  readonly waiting: number | null;
  readonly atModel: number | null;
  /** Turns answered so far. */
  readonly answered: number;
}

/** What came of a run. */
export interface ScalingRun {
  readonly timeline: readonly Moment[];
  readonly asked: number;
  readonly answered: number;
  /** Refused with 429 or 503 and asked again: by then nothing had begun. */
  readonly refused: number;
  /** Turns that were asked and have no whole answer, with the reason. */
  readonly lost: readonly string[];
  /** Turns of the sessions by the platform's own account. */
  readonly stored: number;
}

interface Counts {
  asked: number;
  answered: number;
  refused: number;
  readonly lost: string[];
}

/**
 * Loads the platform for a while, then leaves it alone until it is as small as before, or for `calm` seconds. It begins
 * with as few workers as there may be: more may be left of what was done before.
 */
export async function scalingRun(sessions: number, seconds: number, calm: number): Promise<ScalingRun> {
  await smallest(calm);
  const token = await tokenOf(client);
  const counts: Counts = { asked: 0, answered: 0, refused: 0, lost: [] };
  const began = performance.now();
  const timeline: Moment[] = [];
  const look = async () => {
    const moment = await momentOf((performance.now() - began) / 1000, counts.answered);
    timeline.push(moment);
    return moment;
  };
  const start = await look();
  const ids = await Promise.all(Array.from({ length: sessions }, () => open(token)));
  const end = performance.now() + seconds * 1000;
  let loaded = true;
  const load = Promise.all(ids.map((id) => askUntil(token, id, end, counts))).finally(() => {
    loaded = false;
  });
  while (loaded) {
    await look();
    await Promise.race([sleep(2000), load.catch(() => undefined)]);
  }
  await load;
  const patience = performance.now() + calm * 1000;
  while (performance.now() < patience) {
    const now = await look();
    if (now.wanted <= start.wanted && now.ready <= start.wanted && (now.replicas ?? 0) <= (start.replicas ?? 0)) break;
    await sleep(3000);
  }
  const stored = await storedTurns(token, ids);
  await Promise.all(ids.map((id) => call(`/v1/sessions/${id}`, { method: 'DELETE', token })));
  return { timeline, ...counts, stored };
}

/** Opens a session and returns its id. */
export async function open(token: string): Promise<string> {
  const headers = { 'idempotency-key': randomUUID() };
  const { status, body } = await callPatiently('/v1/sessions', { method: 'POST', token, body: {}, headers });
  if (status !== 201) throw new Error(`no session: status ${status} ${JSON.stringify(body)}`);
  return String(body.id);
}

/** Turns of one session, one after the other. A turn has a key of its own, so that asking again is the same turn. */
async function askUntil(token: string, id: string, end: number, counts: Counts): Promise<void> {
  for (let number = 0; performance.now() < end; number += 1) {
    counts.asked += 1;
    const failure = await ask(token, id, `${id}-${number}`, end + 120_000, counts);
    if (failure === null) counts.answered += 1;
    else counts.lost.push(`${id} turn ${number + 1}: ${failure}`);
  }
}

async function ask(token: string, id: string, key: string, deadline: number, counts: Counts): Promise<string | null> {
  const headers = { 'idempotency-key': key };
  const request = { method: 'POST', token, headers, body: { prompt: 'Tell me about the platform.' } };
  for (;;) {
    const answer = await call<Turn>(`/v1/sessions/${id}/turns`, request).catch((error: Error) => error);
    if (performance.now() > deadline) return 'no answer in time';
    if (answer instanceof Error) {
      // The connection went with its pod: the same key finds the same turn.
      await sleep(500);
      continue;
    }
    if (answer.status === 200) return answer.body.status === 'completed' ? null : `it is ${answer.body.status}`;
    if (![429, 503].includes(answer.status)) return `status ${answer.status}`;
    counts.refused += 1;
    await sleep(1000 * Math.min(10, Number(answer.headers['retry-after'] ?? 1)));
  }
}

/** Completed turns of the sessions, by the platform's own account. */
export async function storedTurns(token: string, ids: readonly string[]): Promise<number> {
  const sessions = await Promise.all(
    ids.map((id) => callPatiently<{ turns: readonly Turn[] }>(`/v1/sessions/${id}`, { token })),
  );
  return sessions.flatMap(({ body }) => body.turns).filter(({ status }) => status === 'completed').length;
}

/** @throws Error when there are still more workers than the fewest after `patience` seconds */
async function smallest(patience: number): Promise<void> {
  const { spec } = await get<Deployment>('deployment', 'scaler', '-n', namespace);
  const fewest = Number(spec.template.spec.containers[0]?.env.find(({ name }) => name === 'MIN_REPLICAS')?.value);
  await eventually(`no more than ${fewest} workers`, patience, async () => {
    const { wanted, ready } = await momentOf(0, 0);
    return (wanted <= fewest && ready <= fewest) || undefined;
  });
}

interface Deployment {
  readonly spec: {
    readonly replicas: number;
    readonly template: {
      readonly spec: { readonly containers: readonly { readonly env: readonly { name: string; value?: string }[] }[] };
    };
  };
  readonly status: { readonly readyReplicas?: number };
}

async function momentOf(at: number, answered: number): Promise<Moment> {
  const [{ spec, status }, last] = await Promise.all([
    get<Deployment>('deployment', 'orchestrator', '-n', namespace),
    lastLook(),
  ]);
  const { backlog = null, model = null } = last?.signals ?? {};
  return {
    ...{ at, answered, wanted: spec.replicas, ready: status.readyReplicas ?? 0 },
    replicas: model?.replicas ?? null,
    waiting: backlog?.tasks ?? null,
    atModel: model === null ? null : model.ongoing + model.waiting,
  };
}

/** What the scaler saw last; null while it has not looked, and between two pods of it. */
async function lastLook(): Promise<Look | null> {
  const pods = ['get', 'pods', '-n', namespace, '-l', 'app.kubernetes.io/instance=scaler'];
  const pod = await kubectl(...pods, '-o', 'jsonpath={.items[0].metadata.name}').catch(() => '');
  if (pod === '') return null;
  const path = `/api/v1/namespaces/${namespace}/pods/${pod}:8081/proxy/scaling`;
  const text = await kubectl('get', '--raw', path).catch(() => 'null');
  return JSON.parse(text) as Look | null;
}

/** Whether something went up under load and came down again, and nothing was lost. */
export function verdictOf({ timeline, asked, answered, stored, lost }: ScalingRun) {
  const sizes = (of: (moment: Moment) => number | null) => timeline.map(of).filter((size) => size !== null);
  const swing = (values: readonly number[]) => {
    const most = Math.max(...values);
    return {
      first: values[0] ?? 0,
      most,
      last: values.at(-1) ?? 0,
      swings: most > (values[0] ?? 0) && (values.at(-1) ?? 0) < most,
    };
  };
  const workers = swing(sizes(({ ready }) => ready));
  const replicas = swing(sizes((moment) => moment.replicas));
  const complete = lost.length === 0 && answered === asked && stored === asked && asked > 0;
  return { workers, replicas, complete };
}

const columns = ['at', 'wanted', 'ready', 'replicas', 'waiting', 'atModel', 'answered'] as const;

/** The timeline as a table. */
export function tableOf({ timeline }: ScalingRun): string {
  const line = (cells: readonly string[]) => cells.map((cell) => cell.padStart(10)).join('');
  const cell = (value: number | null) => (value === null ? '-' : value.toFixed(0));
  return [line(columns), ...timeline.map((moment) => line(columns.map((column) => cell(moment[column]))))].join('\n');
}

/** A load on anything but this machine is refused: it would be a stranger's. */
function requireLoopback(): void {
  for (const url of [address('SOMA_GATEWAY_URL', 'gatewayUrl'), address('SOMA_ISSUER_URL', 'issuerUrl')]) {
    if (['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname)) continue;
    throw new Error(`${url} is not on this machine: the load goes to loopback addresses only`);
  }
}

function bounded(name: string, text: string, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`${name} is ${text}; allowed: a whole number from 1 to ${most}`);
}

/** Reads the command line, loads and prints. @returns whether both went up and down and no turn was lost. */
export async function main(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      sessions: { type: 'string', default: '40' },
      seconds: { type: 'string', default: '90' },
      calm: { type: 'string', default: '240' },
      json: { type: 'boolean', default: false },
    },
  });
  requireLoopback();
  const run = await scalingRun(
    bounded('--sessions', values.sessions, mostSessions),
    bounded('--seconds', values.seconds, 600),
    bounded('--calm', values.calm, 900),
  );
  const verdict = verdictOf(run);
  const { asked, answered, stored, refused, lost } = run;
  if (values.json) console.log(JSON.stringify({ ...run, verdict }));
  else {
    const of = ({ first, most, last }: typeof verdict.workers) => `${first} → ${most} → ${last}`;
    console.log(tableOf(run));
    console.log(`workers ${of(verdict.workers)}, replicas of the model ${of(verdict.replicas)}`);
    console.log(
      `turns asked ${asked}, answered ${answered}, stored ${stored}, refused for a while ${refused}, lost ${lost.length}`,
    );
    for (const reason of lost) console.log(`  ${reason}`);
  }
  return verdict.complete && verdict.workers.swings && verdict.replicas.swings;
}

if (import.meta.main && !(await main(process.argv.slice(2)))) process.exitCode = 1;
