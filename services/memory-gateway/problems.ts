import type { ProblemKind } from '@somagent/governance';

/** What was forgotten stays forgotten. */
export const forgotten: ProblemKind = { type: 'memory-forgotten', status: 410, title: 'This was forgotten' };

/** There is nothing that could be summarized. */
export const nothingThere: ProblemKind = {
  type: 'nothing-to-summarize',
  status: 409,
  title: 'There are no memories in this scope',
};

/** The model gave no summary; none is made up instead. */
export const noSummary: ProblemKind = { type: 'no-summary', status: 502, title: 'The model gave no summary' };
