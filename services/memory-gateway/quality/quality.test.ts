import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { measure } from './measure.ts';
import { passagesOf } from './passages.ts';

const read = (name: string) =>
  readFileSync(new URL(name, import.meta.url), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('recall and mean reciprocal rank by hand', () => {
  const found = [
    { wanted: 'a', ids: ['a', 'b'] },
    { wanted: 'b', ids: ['x', 'y', 'z', 'b'] },
    { wanted: 'c', ids: ['x'] },
    { wanted: 'd', ids: [] },
  ];
  assert.deepEqual(measure(found), { recall: 0.5, mrr: (1 + 0.25) / 4 });
  assert.throws(() => measure([]), RangeError);
});

test('at least 300 questions, each of a passage that is there, and none is a copy of it', () => {
  const passages = new Map<string, string>(read('passages.jsonl').map(({ id, text }) => [id, text.toLowerCase()]));
  const questions = read('questions.jsonl');
  assert.ok(questions.length >= 300);
  assert.equal(new Set(questions.map(({ question }) => question)).size, questions.length);
  for (const { question, passage, split } of questions) {
    const text = passages.get(passage);
    assert.ok(text !== undefined, `${question}: no passage ${passage}`);
    assert.ok(['dev', 'test'].includes(split));
    const words = question
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} ]/gu, '')
      .split(/\s+/);
    for (let from = 0; from + 6 <= words.length; from += 1) {
      const run = words.slice(from, from + 6).join(' ');
      assert.ok(!text.includes(run), `"${run}" of "${question}" is copied from its passage`);
    }
  }
});

test('a page is cut at paragraphs, rows and items, with its heading', () => {
  const words = (count: number, word: string) => Array.from({ length: count }, () => word).join(' ');
  const page = `# Title\n\n${words(60, 'one')}\n\n## Part\n- ${words(70, 'two')}\n- ${words(70, 'three')}\n\ntiny\n`;
  const cut = passagesOf('a.md', page).map(({ source, text }) => [source, text.split(/\s+/).length]);
  assert.deepEqual(cut, [
    ['a.md # Title', 60],
    ['a.md # Part', 71],
    ['a.md # Part', 72],
  ]);
});
