/**
 * How well recall finds: `node services/memory-gateway/quality/main.ts [--split=test|dev]`. Stores the passages of
 * `passages.jsonl` in a Postgres of its own, indexes them with the real model and engine, and asks the questions of the
 * split by words alone, by vectors alone and by both.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Indexer } from '../indexer.ts';
import { Memories } from '../memories.ts';
import { Recall, type RecallMode } from '../recall.ts';
import type { Scope } from '../scope.ts';
import { by, memoryOf, quiet, startMemoryDatabase } from '../testing/database.ts';
import { startTestStores } from '../testing/stores.ts';
import { measure, type Quality } from './measure.ts';
import type { Passage } from './passages.ts';

/** A question and the passage that answers it. */
interface Question {
  readonly question: string;
  /** Id of the passage. */
  readonly passage: string;
  /** `dev` chooses weights, `test` is only measured. */
  readonly split: 'dev' | 'test';
}

const read = <Line>(name: string): readonly Line[] =>
  readFileSync(new URL(name, import.meta.url), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const scope: Scope = { tenant: 'docs', visible: { owner: 'reader' }, filter: {} };
const modes: readonly RecallMode[] = ['keywords', 'vectors', 'hybrid'];

async function main(split: string): Promise<void> {
  const passages = read<Passage>('passages.jsonl');
  const questions = read<Question>('questions.jsonl').filter((each) => each.split === split);
  if (questions.length === 0) throw new Error(`--split=${split} has no question. Use dev or test.`);
  const [test, stores] = await Promise.all([startMemoryDatabase(), startTestStores()]);
  try {
    const { database } = test;
    const { vectors, embeddings } = stores;
    const memories = new Memories(database);
    const passageOf = new Map<string, string>();
    for (const { id, text } of passages) {
      const { memory } = await memories.store(memoryOf(text, { tenant: 'docs', owner: 'reader' }), by);
      passageOf.set(memory.id, id);
    }
    const indexer = new Indexer({ database, vectors, embeddings, log: quiet });
    indexer.start();
    while ((await indexer.backlog()).tasks > 0) await sleep(500);
    await indexer.stop();
    const recall = new Recall({ database, memories, vectors, embeddings, log: quiet });
    console.log(`${passages.length} passages, ${questions.length} questions of the split ${split}`);
    for (const mode of modes) {
      const found: { readonly wanted: string; readonly ids: readonly string[] }[] = [];
      for (const { question, passage } of questions) {
        const answer = await recall.recall({ scope, query: question, limit: 10, deadlineMs: 10_000 }, mode);
        if (answer.degraded !== null) throw new Error(`recall went without vectors: ${answer.degraded.reason}`);
        found.push({ wanted: passage, ids: answer.memories.map(({ id }) => passageOf.get(id) ?? '') });
      }
      console.log(lineOf(mode, measure(found)));
    }
  } finally {
    await stores.stop();
    await test.stop();
  }
}

const lineOf = (mode: RecallMode, { recall, mrr }: Quality): string =>
  `${mode.padEnd(8)}  recall@10 ${recall.toFixed(3)}  MRR ${mrr.toFixed(3)}`;

const { values } = parseArgs({ options: { split: { type: 'string', default: 'test' } } });
await main(values.split);
