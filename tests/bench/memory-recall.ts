/**
 * How fast memories are stored and recalled, and what becomes of them while the vector store is away: a real Postgres
 * (fsync on, TLS), the real engine and the real model, each a process of its own.
 * `node tests/bench/memory-recall.ts [--memories=100000] [--questions=400] [--tenants=8] [--owners=25] [--json]`
 *
 * `--first` gives every process of the recalls precedence over whatever else the machine does (root), for the seconds in
 * which they are measured: otherwise most of a time is waiting for a core.
 * `--turns=80` measures what a turn costs in processor time instead: one recall and one memory, as a session has them.
 * `--words` measures the search by words alone, with and without its index, in half a minute.
 * `--tenants=10` is ten tenants alike, `--tenants=1` a large one, and `--tenants=1 --owners=1` one scope with everything.
 * The first 5,000 are stored as the service stores them, and counted; the others are inserted in bulk. Vectors of the fill
 * are those of the model, asked for once per sentence and stored past the indexer, whose own rate is measured apart: the
 * mark is about recall among so many, not about an hour of filling.
 */
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { loadavg, setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Indexer } from '@somagent/memory-gateway/indexer.ts';
import { keywordLimits, keywordSearch } from '@somagent/memory-gateway/keywords.ts';
import { contentHash, Memories, type NewMemory } from '@somagent/memory-gateway/memories.ts';
import { Recall, type RecallAnswer } from '@somagent/memory-gateway/recall.ts';
import type { Scope } from '@somagent/memory-gateway/scope.ts';
import {
  by,
  memoryOf,
  quiet,
  startMemoryDatabase,
  type TestMemoryDatabase,
} from '@somagent/memory-gateway/testing/database.ts';
import { startTestStores, type TestStores } from '@somagent/memory-gateway/testing/stores.ts';
import { never } from '@somagent/memory-gateway/vector-filter.ts';
import { sql } from 'kysely';

const { values: flags } = parseArgs({
  options: {
    memories: { type: 'string', default: '100000' },
    questions: { type: 'string', default: '400' },
    tenants: { type: 'string', default: '8' },
    owners: { type: 'string', default: '25' },
    words: { type: 'boolean' },
    turns: { type: 'string' },
    first: { type: 'boolean' },
    json: { type: 'boolean' },
  },
});
const [count, questions] = [Number(flags.memories), Number(flags.questions)];
const [tenantCount, ownersPerTenant] = [Number(flags.tenants), Number(flags.owners)];
if (!(count >= 1000 && count <= 1_000_000)) throw new Error(`--memories is ${flags.memories}: give 1000 to 1000000`);
if (!(questions >= 50 && questions <= 10_000)) throw new Error(`--questions is ${flags.questions}: give 50 to 10000`);
if (!(tenantCount >= 1 && tenantCount <= 100)) throw new Error(`--tenants is ${flags.tenants}: give 1 to 100`);
if (!(ownersPerTenant >= 1 && ownersPerTenant <= 1000)) throw new Error(`--owners is ${flags.owners}: give 1 to 1000`);

/** Marks of issue 5, milliseconds and seconds. */
const marks = { recallP95: 50, catchUpSeconds: 60 } as const;

/** Stored one by one, and counted. */
const counted = 5000;

const tenants = Array.from({ length: tenantCount }, (_, place) => `tenant-${place}`);
const teamsPerTenant = Math.min(5, ownersPerTenant);

const parts = {
  who: ['Ada', 'Bruno', 'Chen', 'Dunja', 'Emil', 'Farah', 'Goran', 'Hana', 'Ivo', 'Jana'],
  does: ['repairs', 'photographs', 'sells', 'collects', 'paints', 'forgets', 'borrows', 'ships', 'insures', 'measures'],
  what: ['old bicycles', 'wooden boats', 'court files', 'garden tools', 'data centres', 'violins', 'tax forms', 'maps'],
  where: ['in the harbour', 'at night'],
};

/** Sentence of a number: 1,600 different ones. */
const sentence = (number: number): string => {
  const pick = (list: readonly string[], step: number) => list[Math.floor(number / step) % list.length] ?? '';
  return `${pick(parts.who, 1)} ${pick(parts.does, 10)} ${pick(parts.what, 100)} ${pick(parts.where, 800)}`;
};
const sentences = Array.from({ length: 1600 }, (_, number) => sentence(number));

const ownerOf = (number: number): string => `owner-${Math.floor(number / tenants.length) % ownersPerTenant}`;
const teamOf = (number: number): string => `team-${Math.floor(number / tenants.length) % teamsPerTenant}`;

/** The memory of a number; every fifth is shared with a team. */
const sample = (number: number): NewMemory => {
  const round = Math.floor(number / (tenants.length * ownersPerTenant));
  const text = `${sentences[(number * 7) % sentences.length]}, note ${round}`;
  return memoryOf(text, {
    tenant: tenants[number % tenants.length] ?? '',
    id: randomUUID(),
    owner: ownerOf(number),
    team: round % 5 === 0 ? teamOf(number) : null,
    importance: (number % 10) / 10,
  });
};

const since = (begun: number): number => performance.now() - begun;
const percentile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
const round1 = (value: number): number => Math.round(value * 10) / 10;

/** Stores all memories, four at once. @returns memories a second */
async function fill(memories: Memories, all: readonly NewMemory[]): Promise<number> {
  const begun = performance.now();
  let next = 0;
  const work = async () => {
    while (next < all.length) {
      const memory = all[next];
      next += 1;
      if (memory !== undefined) await memories.store(memory, by);
    }
  };
  await Promise.all(Array.from({ length: 4 }, work));
  return all.length / (since(begun) / 1000);
}

/** Inserts memories in bulk, without their events and tasks. */
async function insert({ database }: TestMemoryDatabase, all: readonly NewMemory[]): Promise<void> {
  for (let from = 0; from < all.length; from += 2000) {
    const rows = all.slice(from, from + 2000).map(({ sessionId: _, expiresAt: __, ...memory }) => ({
      ...memory,
      content_hash: contentHash(memory.text).toString('hex'),
    }));
    await sql`
      insert into memory (tenant, id, owner, team, kind, text, content_hash, importance)
      select tenant, id, owner, team, kind, text, decode(content_hash, 'hex'), importance
      from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as row
        (tenant text, id uuid, owner text, team text, kind text, text text, content_hash text, importance real)`.execute(
      database.platform,
    );
  }
}

/** Vectors of the model for every sentence, once. */
async function embedSentences({ embeddings }: TestStores): Promise<readonly (readonly number[])[]> {
  const vectors: (readonly number[])[] = [];
  for (let from = 0; from < sentences.length; from += 64) {
    vectors.push(...(await embeddings.embed(sentences.slice(from, from + 64))));
  }
  return vectors;
}

/** Puts the vectors of the fill into the engine, and takes their tasks from the indexer. */
async function load(
  { vectors }: TestStores,
  { database }: TestMemoryDatabase,
  all: readonly NewMemory[],
  of: readonly (readonly number[])[],
) {
  for (const tenant of tenants) {
    const own = all.map((memory, number) => ({ memory, number })).filter(({ memory }) => memory.tenant === tenant);
    for (let from = 0; from < own.length; from += 500) {
      const points = own.slice(from, from + 500).map(({ memory, number }) => ({
        id: memory.id,
        vector: of[(number * 7) % sentences.length] ?? [],
        payload: {
          tenant,
          owner: memory.owner,
          team: memory.team ?? '',
          persona: '',
          session_id: '',
          kind: memory.kind,
          created_at: Date.now(),
          expires_at: never,
        },
      }));
      await vectors.upsert(tenant, points);
    }
  }
  await sql`truncate index_task`.execute(database.platform);
  await sql`vacuum analyze memory`.execute(database.untenanted);
}

const scopeOf = (number: number): Scope => ({
  tenant: tenants[number % tenants.length] ?? '',
  visible: { owner: ownerOf(number), teams: [teamOf(number)] },
  filter: {},
});

const questionOf = (number: number): string => {
  const pick = (list: readonly string[]) => list[(number * 31) % list.length] ?? '';
  return `Who ${pick(parts.does)} ${pick(parts.what)} ${pick(parts.where)}?`;
};

async function ask(recall: Recall, amount: number): Promise<readonly RecallAnswer[]> {
  const answers: RecallAnswer[] = [];
  for (let number = 0; number < amount; number += 1) {
    const asked = { scope: scopeOf(number * 13), query: questionOf(number), limit: 10, deadlineMs: 2000 };
    answers.push(await recall.recall(asked));
  }
  return answers;
}

const halfAndMost = (times: readonly number[]) => ({
  p50: round1(percentile(times, 0.5)),
  p95: round1(percentile(times, 0.95)),
});

const timesOf = (answers: readonly RecallAnswer[], part: keyof RecallAnswer['timings']) =>
  halfAndMost(answers.flatMap(({ timings }) => timings[part] ?? []));

/** What follows when both ways have answered: texts from Postgres, and weighing. */
const mergeOf = (answers: readonly RecallAnswer[]) =>
  halfAndMost(
    answers.map(
      ({ timings: { embed, vectors, keywords, total } }) => total - Math.max((embed ?? 0) + (vectors ?? 0), keywords),
    ),
  );

/** No scope is too large to be read whole: how words were searched before the index over them. */
const withoutIndex = { ...keywordLimits, wholeScope: 2 ** 31 - 2 };

/** The search by words with its index and without it, in turns: nothing else is started. */
async function wordsOnly(): Promise<void> {
  const test = await startMemoryDatabase({ fsync: 'on', log_statement: 'none', shared_buffers: '128MB' });
  try {
    await insert(
      test,
      Array.from({ length: count }, (_, number) => sample(number)),
    );
    await sql`vacuum analyze memory`.execute(test.database.untenanted);
    const times = { words: [] as number[], before: [] as number[] };
    for (let number = 0; number < Math.min(questions, 60); number += 1) {
      const [scope, query] = [scopeOf(number * 13), questionOf(number)];
      for (const [kind, limits] of [
        ['words', keywordLimits],
        ['before', withoutIndex],
      ] as const) {
        const begun = performance.now();
        await keywordSearch(test.database, scope, query, 40, limits);
        if (number >= 10) times[kind].push(since(begun));
      }
    }
    const [words, before] = [halfAndMost(times.words), halfAndMost(times.before)];
    const ratio = { p50: round1(before.p50 / words.p50), p95: round1(before.p95 / words.p95) };
    console.log(
      JSON.stringify({ load: round1(loadavg()[0] ?? 0), memories: count, words, wordsWithoutIndex: before, ratio }),
    );
  } finally {
    await test.stop();
  }
}

/** Each step alone, one after the other: what it takes when nothing else of the recall runs beside it. */
async function legs({ database }: TestMemoryDatabase, { embeddings, vectors }: TestStores, amount: number) {
  const times = { words: [], wordsWithoutIndex: [], embed: [], vectors: [] } as Record<Leg, number[]>;
  const time = async <Value>(leg: Leg, work: Promise<Value>): Promise<Value> => {
    const begun = performance.now();
    const value = await work;
    times[leg].push(since(begun));
    return value;
  };
  for (let number = 0; number < amount; number += 1) {
    const [scope, query] = [scopeOf(number * 13), questionOf(number)];
    await time('words', keywordSearch(database, scope, query, 40));
    await time('wordsWithoutIndex', keywordSearch(database, scope, query, 40, withoutIndex));
    const [vector = []] = await time('embed', embeddings.embed([query]));
    await time('vectors', vectors.search(scope, vector, 40));
  }
  const [words, before] = [halfAndMost(times.words), halfAndMost(times.wordsWithoutIndex)];
  return {
    words,
    wordsWithoutIndex: before,
    ratio: { p50: round1(before.p50 / words.p50), p95: round1(before.p95 / words.p95) },
    embed: halfAndMost(times.embed),
    vectors: halfAndMost(times.vectors),
  };
}

type Leg = 'words' | 'wordsWithoutIndex' | 'embed' | 'vectors';

/** The engine is killed, memories go on, it comes back. */
async function outage(stores: TestStores, memories: Memories, recall: Recall, indexer: Indexer) {
  await stores.engine.kill();
  const answers = await ask(recall, 50);
  const during = Array.from({ length: 200 }, (_, number) => sample(count + number));
  await fill(memories, during);
  await stores.engine.start();
  const back = performance.now();
  indexer.start();
  while ((await indexer.backlog()).tasks > 0) await sleep(100);
  const seconds = since(back) / 1000;
  await indexer.stop();
  const found = await stores.vectors.present(during.map(({ id }) => id));
  return {
    degraded: answers.filter(({ degraded }) => degraded !== null).length,
    answered: answers.filter(({ memories: found }) => found.length > 0).length,
    recall: timesOf(answers, 'total'),
    storedDuring: during.length,
    indexedAfter: Object.values(found).reduce((sum, each) => sum + each, 0),
    catchUpSeconds: round1(seconds),
  };
}

/** How fast the indexer itself is, vectors included. @returns memories a second */
async function indexing(memories: Memories, indexer: Indexer): Promise<number> {
  const some = Array.from({ length: 500 }, (_, number) => sample(count + 10_000 + number));
  await fill(memories, some);
  const begun = performance.now();
  while ((await indexer.step()) > 0);
  return some.length / (since(begun) / 1000);
}

async function main(): Promise<void> {
  const [test, stores] = await Promise.all([
    startMemoryDatabase({ fsync: 'on', log_statement: 'none', shared_buffers: '128MB' }),
    startTestStores(),
  ]);
  try {
    const { database } = test;
    const { vectors, embeddings } = stores;
    const memories = new Memories(database);
    const recall = new Recall({ database, memories, vectors, embeddings, log: quiet });
    const indexer = () => new Indexer({ database, vectors, embeddings, log: quiet });
    const all = Array.from({ length: count }, (_, number) => sample(number));
    const stored = await fill(memories, all.slice(0, counted));
    await insert(test, all.slice(counted));
    await load(stores, test, all, await embedSentences(stores));
    await ask(recall, 20);
    if (flags.first) await precede(test, stores, -15);
    const answers = await ask(recall, questions);
    if (flags.first) await precede(test, stores, 0);
    const figures = {
      load: round1(loadavg()[0] ?? 0),
      memories: count,
      tenants: tenants.length,
      owners: ownersPerTenant,
      storedPerSecond: Math.round(stored),
      recall: timesOf(answers, 'total'),
      embed: timesOf(answers, 'embed'),
      vectors: timesOf(answers, 'vectors'),
      keywords: timesOf(answers, 'keywords'),
      merge: mergeOf(answers),
      alone: await legs(test, stores, Math.min(questions, 100)),
      degraded: answers.filter(({ degraded }) => degraded !== null).length,
      indexedPerSecond: Math.round(await indexing(memories, indexer())),
      outage: await outage(stores, memories, recall, indexer()),
    };
    report(figures);
  } finally {
    await stores.stop();
    await test.stop();
  }
}

/** The niceness of this process, the engine, the worker and Postgres. */
async function precede({ database }: TestMemoryDatabase, { engine, worker }: TestStores, niceness: number) {
  const { rows } = await sql<{ pid: number }>`select pid from pg_stat_activity`.execute(database.untenanted);
  const pids = [process.pid, engine.pid, worker.pid, ...rows.map(({ pid }) => pid)];
  for (const pid of pids) {
    // A process may have threads of other niceness: each is asked for.
    for (const thread of readdirSync(`/proc/${pid}/task`)) setPriority(Number(thread), niceness);
  }
}

/** Milliseconds of processor time that a process has taken. */
function processorTimeOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** What recall and memory of a turn cost each process, less what they take while nothing happens. */
async function turnCost(turns: number): Promise<void> {
  const [test, stores] = await Promise.all([
    startMemoryDatabase({ fsync: 'on', log_statement: 'none' }),
    startTestStores(),
  ]);
  try {
    const { database } = test;
    const memories = new Memories(database);
    const recall = new Recall({ database, memories, ...stores, log: quiet });
    const indexer = new Indexer({ database, ...stores, log: quiet });
    indexer.start();
    const turn = async (number: number) => {
      const tenant = tenants[number % tenants.length] ?? '';
      const scope = { tenant, visible: { owner: 'ada' }, filter: {} };
      const said = `What did Ada repair in the harbour on day ${number}?`;
      await recall.recall({ scope, query: said, limit: 5, deadlineMs: 5000 });
      const text = `The user said: ${said}\nThe agent answered: She repaired ${number % 7} old bicycles and one wooden boat, because the owner of the boat had asked her twice in that week already.`;
      await memories.store(memoryOf(text, { tenant, owner: 'ada', kind: 'episodic' }), by);
      indexer.wake();
      await sleep(150);
    };
    const taken = () => ({
      gateway: (process.cpuUsage().user + process.cpuUsage().system) / 1000,
      embeddings: processorTimeOf(stores.worker.pid),
      engine: processorTimeOf(stores.engine.pid),
    });
    for (let number = 0; number < 40; number += 1) await turn(number);
    const calm = taken();
    await sleep(5000);
    const [before, begun] = [taken(), performance.now()];
    for (let number = 100; number < 100 + turns; number += 1) await turn(number);
    while ((await indexer.backlog()).tasks > 0) await sleep(50);
    const [after, seconds] = [taken(), since(begun) / 1000];
    const cost = (part: keyof typeof before) => {
      const idle = (before[part] - calm[part]) / 5;
      return {
        msPerTurn: round1((after[part] - before[part] - idle * seconds) / turns),
        idleMsPerSecond: round1(idle),
      };
    };
    const parts = { gateway: cost('gateway'), embeddings: cost('embeddings'), engine: cost('engine') };
    console.log(JSON.stringify({ load: round1(loadavg()[0] ?? 0), turns, ...parts }, undefined, 2));
    await indexer.stop();
  } finally {
    await stores.stop();
    await test.stop();
  }
}

interface Figures {
  readonly recall: { readonly p95: number };
  readonly outage: Awaited<ReturnType<typeof outage>>;
}

/** Prints the figures; ends with 1 when something was lost or a mark is missed. */
function report(figures: Figures & object): void {
  console.log(JSON.stringify(figures, undefined, flags.json ? undefined : 2));
  const { recall, outage: away } = figures;
  const problems = [
    ...(recall.p95 <= marks.recallP95 ? [] : [`recall p95 ${recall.p95} ms, mark ${marks.recallP95}`]),
    ...(away.degraded === 50 ? [] : [`${50 - away.degraded} of 50 recalls did not say that the engine was away`]),
    ...(away.indexedAfter === away.storedDuring ? [] : ['memories stored during the outage have no vector']),
    ...(away.catchUpSeconds <= marks.catchUpSeconds ? [] : [`the indexer caught up after ${away.catchUpSeconds} s`]),
  ];
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}

const turns = Number(flags.turns ?? 0);
if (flags.turns !== undefined && !(turns >= 20 && turns <= 1000))
  throw new Error(`--turns is ${flags.turns}: give 20 to 1000`);
await (flags.words ? wordsOnly() : turns > 0 ? turnCost(turns) : main());
