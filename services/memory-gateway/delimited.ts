/**
 * How remembered text is shown to a model: as data that can't end its own block, take another role or begin a tag of a
 * chat template. Nothing here asks the model to be careful and hopes: the characters that any of it needs are escaped.
 */

/** Letters, marks, digits, spaces and the punctuation of prose stay; all else becomes an escape of JSON. */
const unsafe = /[^\p{L}\p{M}\p{N} .,;:!?'()/+*=%€$&@_-]/gu;

const escapeOf = (character: string): string =>
  [...character]
    .flatMap((each) => Array.from({ length: each.length }, (_, place) => each.charCodeAt(place)))
    .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
    .join('');

/** A string of JSON in which only harmless characters stand for themselves; `JSON.parse` gives the text back. */
export const quoted = (text: string): string => `"${text.replaceAll(unsafe, escapeOf)}"`;

/** One remembered thing, as the model sees it. */
export interface ShownMemory {
  readonly at: string;
  readonly text: string;
}

/** Begins and ends the block; neither can occur inside of it, since a bracket is escaped there. */
export const opening = '[[memories]]';
export const closing = '[[end of memories]]';

/** The block with the memories, one to a line. */
export const memoryBlock = (memories: readonly ShownMemory[]): string =>
  [
    opening,
    ...memories.map(({ at, text }, place) => `${place + 1}. ${quoted(at.slice(0, 10))} ${quoted(text)}`),
    closing,
  ].join('\n');
