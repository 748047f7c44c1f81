import { opa } from '../bundle/corpus.ts';

/** One small change of a rule that a good test must notice. */
export interface Mutant {
  /** File, relative to the corpus. */
  readonly file: string;
  readonly line: number;
  readonly operator: string;
  /** What stands there, and what the mutant puts in its place. */
  readonly before: string;
  readonly after: string;
  /** Where it stands, as a half-open range of characters. */
  readonly start: number;
  readonly end: number;
}

/** A node of `opa parse --format json`. */
interface Node {
  readonly location?: { readonly row: number; readonly col: number; readonly text: string };
  readonly type?: string;
  readonly value?: unknown;
  readonly terms?: unknown;
  readonly negated?: boolean;
  readonly generated?: boolean;
  readonly default?: boolean;
  readonly [field: string]: unknown;
}

type Change = readonly [operator: string, before: string, after: string];

const comparisons: Readonly<Record<string, string>> = {
  '==': '!=',
  '!=': '==',
  '>': '>=',
  '<': '<=',
  '>=': '>',
  '<=': '<',
};
const functions: Readonly<Record<string, string>> = {
  startswith: 'endswith',
  endswith: 'startswith',
  'lib.allow': 'lib.deny',
  'lib.deny': 'lib.allow',
};

/** Every mutant of a file of rules, in the order of the text. */
export function mutantsOf(file: string, text: string, folder: string): Mutant[] {
  const tree = JSON.parse(opa(['parse', file, '--format', 'json', '--json-include', 'locations'], { cwd: folder })) as {
    readonly rules: readonly Node[];
  };
  const lines = lineStarts(text);
  const found = new Map<string, Mutant>();
  const add = (node: Node, changes: readonly Change[]) => {
    if (node.location === undefined) return;
    const { row, col } = node.location;
    for (const [operator, before, after] of changes) {
      const start = (lines[row - 1] ?? 0) + col - 1;
      // The parser shares locations between what it rewrote and what was written: only what stands there counts.
      if (!text.startsWith(before, start) || before === after) continue;
      found.set(`${start} ${before} ${after}`, {
        file,
        line: row,
        operator,
        before,
        after,
        start,
        end: start + before.length,
      });
    }
  };
  for (const rule of tree.rules) visitRule(rule, add);
  return [...found.values()].sort((a, b) => a.start - b.start || a.operator.localeCompare(b.operator));
}

type Add = (node: Node, changes: readonly Change[]) => void;

const textOf = (node: Node): string => Buffer.from(node.location?.text ?? '', 'base64').toString('utf8');

function visitRule(rule: Node, add: Add): void {
  if (rule.default === true) {
    const words = textOf(rule);
    // The keyword stands before the location of the rule: without a default, the decision may be undefined.
    add(rule, [['change default', words, words.replace('"allow": false', '"allow": true')]]);
  }
  const body = (rule.body as Node[] | undefined)?.filter(({ generated }) => generated !== true) ?? [];
  for (const [index, expression] of body.entries()) visitExpression(expression, index, body.length, add);
  visit(rule.head, add, true);
  if (rule.else !== undefined) visitRule(rule.else as Node, add);
}

function visitExpression(expression: Node, index: number, count: number, add: Add): void {
  const words = textOf(expression);
  const changes: Change[] = [];
  // What binds a variable can't be left out: the rest would not compile.
  if (!/^(some|every)\b/.test(words) && !/^[^"=]*(:=|[^=!<>]=[^=])/.test(words)) {
    changes.push(['negate condition', words, expression.negated ? words.replace(/^not /, '') : `not ${words}`]);
    changes.push(['drop condition', words, 'true']);
  }
  if (index === 0) changes.push([count === 1 ? 'drop rule' : 'never', words, neverFirst(words)]);
  if (words.startsWith('every ')) changes.push(['every → some', words, words.replace(/^every /, 'some ')]);
  add(expression, changes);
  visit(expression, add, false);
}

/** A condition that never holds, valid on one line and in a block. */
function neverFirst(words: string): string {
  return /^(some|every)\b/.test(words) ? `false\n\t${words}` : 'false';
}

function visit(value: unknown, add: Add, inHead: boolean): void {
  if (Array.isArray(value)) {
    for (const each of value) visit(each, add, inHead);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  const node = value as Node;
  if (node.type !== undefined) visitTerm(node, add, inHead);
  // A path such as input.subject.id is one name: its parts are no constants.
  if (node.type === 'ref') return;
  for (const [field, child] of Object.entries(node)) {
    if (field !== 'location' && field !== 'annotations') visit(child, add, inHead);
  }
}

/** @param inHead Words of a verdict are no decision: mutants of them would only make the score look better. */
function visitTerm(node: Node, add: Add, inHead: boolean): void {
  const words = textOf(node);
  add(node, inHead && ['string', 'array'].includes(node.type ?? '') ? [] : changesOfTerm(node, words));
}

function changesOfTerm(node: Node, words: string): readonly Change[] {
  switch (node.type) {
    case 'boolean':
      return [['flip', words, words === 'true' ? 'false' : 'true']];
    case 'number':
      return [['other number', words, String(Number(words) + 1)]];
    case 'null':
      return [['no null', 'null', '0']];
    case 'string':
      return [['other text', words, `${words.slice(0, -1)}~${words.slice(-1)}`]];
    case 'ref':
      return [
        ...(comparisons[words] === undefined ? [] : [['other comparison', words, comparisons[words]] as const]),
        ...(functions[words] === undefined ? [] : [['other function', words, functions[words]] as const]),
      ];
    case 'array':
    case 'set':
      return withoutMembers(words, node.value as Node[]);
    default:
      return [];
  }
}

/** The list once without each of its members. */
function withoutMembers(words: string, members: readonly Node[]): Change[] {
  if (members.length < 2) return [];
  const texts = members.map(textOf);
  const [open, close] = [words.slice(0, 1), words.slice(-1)];
  return texts.map((_, index) => {
    const kept = texts.filter((_, other) => other !== index);
    return ['drop member', words, `${open}${kept.join(', ')}${close}`] as const;
  });
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return starts;
}
