import type { ProblemKind } from '@somagent/governance';

/** The session has ended. */
export const sessionClosed: ProblemKind = { type: 'session-closed', status: 409, title: 'The session is closed' };

/** An idempotency key names one request for ever. */
export const keyReused: ProblemKind = {
  type: 'key-reused',
  status: 422,
  title: 'The idempotency key was used for another request',
};

/** The queue of the session is full. */
export const tooManyTurns: ProblemKind = {
  type: 'too-many-turns',
  status: 429,
  title: 'Too many turns wait in this session',
};

/** The model failed. */
export const generationFailed: ProblemKind = {
  type: 'generation-failed',
  status: 502,
  title: 'The model did not answer',
};
