/**
 * Cuts documentation into passages: `node services/memory-gateway/quality/passages.ts > passages.jsonl` from the root of
 * the repository. The committed file is fixed, so that figures of different versions compare.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** A piece of documentation that can answer something. */
export interface Passage {
  readonly id: string;
  /** Path and heading, for people. */
  readonly source: string;
  readonly text: string;
}

/** Words of a passage: shorter ones join their neighbour, longer ones are cut at a paragraph or row. */
const [fewest, most] = [20, 110];

const wordsOf = (text: string): number => text.split(/\s+/).length;

/** Passages of one page. */
export function passagesOf(path: string, markdown: string): readonly Passage[] {
  const passages: Passage[] = [];
  let heading = '';
  let pending: string[] = [];
  const flush = () => {
    const text = pending.join('\n').trim();
    pending = [];
    if (wordsOf(text) < fewest) return;
    const id = createHash('sha256').update(`${path}\n${text}`).digest('hex').slice(0, 10);
    passages.push({ id, source: heading === '' ? path : `${path} # ${heading}`, text });
  };
  for (const block of blocksOf(markdown)) {
    const title = /^#+\s+(.*)$/.exec(block)?.[1];
    if (title !== undefined) {
      flush();
      heading = title;
      continue;
    }
    if (wordsOf([...pending, block].join(' ')) > most) flush();
    pending.push(block);
  }
  flush();
  return passages;
}

/** Paragraphs, rows of tables and items of lists; code goes with what is before it. */
function blocksOf(markdown: string): readonly string[] {
  const withoutBanner = markdown.replaceAll(/^\*\*No mocks.*\*\*$/gm, '');
  return withoutBanner
    .split(/\n(?=\n|#|\||- |\d+\. )/)
    .map((block) => block.trim())
    .filter((block) => block !== '' && !/^\|[\s|:-]+\|$/.test(block));
}

/** The model's corpus asks its own questions: a passage with them would be found by its wording. */
const asksItself = ({ source, text }: Passage): boolean =>
  source.startsWith('services/slm/corpus') && text.includes('Q: ');

function main(): void {
  const listed = execFileSync('git', ['ls-files', '*.md'], { encoding: 'utf8' }).trim().split('\n');
  const passages = listed.flatMap((path) => passagesOf(path, readFileSync(path, 'utf8')));
  for (const passage of passages.filter((each) => !asksItself(each))) {
    process.stdout.write(`${JSON.stringify(passage)}\n`);
  }
}

if (import.meta.main) main();
