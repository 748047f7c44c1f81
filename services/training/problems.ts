import type { ProblemKind } from '@somagent/governance';

/** Types of problems that only this service answers with. */
export const problems = {
  notPerson: { type: 'not-a-person', status: 403, title: 'Only people decide this' },
  notAllowed: { type: 'training-not-allowed', status: 403, title: 'The policy of training does not allow this' },
  nothingApproved: { type: 'nothing-approved', status: 409, title: 'There is not enough approved data' },
  runOpen: { type: 'run-open', status: 409, title: 'Another run of the tenant has not ended' },
  notPassed: { type: 'run-not-passed', status: 409, title: 'The run has no model that may serve' },
  modelDamaged: { type: 'model-damaged', status: 409, title: 'The stored model is not the one that passed' },
} as const satisfies Readonly<Record<string, ProblemKind>>;
