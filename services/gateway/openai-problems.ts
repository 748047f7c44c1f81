import { z } from '@hono/zod-openapi';
import type { failed, Problem, ProblemKind } from '@somagent/governance';

/** A budget has no room for the request. */
export const budgetExceeded: ProblemKind = {
  type: 'budget-exceeded',
  status: 429,
  title: 'A budget has no room for the request',
};

/** No model of that name is configured. */
export const modelUnknown: ProblemKind = { type: 'model-not-found', status: 404, title: 'There is no such model' };

/** A tool of the request may not be called. */
export const toolDenied: ProblemKind = { type: 'tool-denied', status: 403, title: 'A tool may not be called' };

/** The conversation is longer than the model reads. */
export const contextTooLong: ProblemKind = {
  type: 'context-length-exceeded',
  status: 400,
  title: 'The conversation is too long for the model',
};

/** The servers of the model take no more at the moment. */
export const modelBusy: ProblemKind = { type: 'model-overloaded', status: 429, title: 'The model is overloaded' };

/** No server of the model has answered. */
export const modelFailed: ProblemKind = { type: 'model-failed', status: 502, title: 'The model did not answer' };

/** The model took longer than a request may. */
export const modelTimeout: ProblemKind = { type: 'model-timeout', status: 504, title: 'The model took too long' };

/** Nobody is there to be answered; the status is the one that servers write to their logs for it. */
export const clientGone: ProblemKind = { type: 'client-gone', status: 499, title: 'The client has left' };

/** An error as OpenAI's API shows it. Source: https://platform.openai.com/docs/guides/error-codes */
export interface OpenAiError {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** Codes by which clients of OpenAI recognize what has happened; others are the type of the problem. */
const codes: Readonly<Record<string, string>> = {
  'token-missing': 'invalid_api_key',
  'token-invalid': 'invalid_api_key',
  'token-revoked': 'invalid_api_key',
  'budget-exceeded': 'insufficient_quota',
  'rate-limited': 'rate_limit_exceeded',
};

function typeOf({ type, status }: Problem): string {
  if (type === 'budget-exceeded') return 'insufficient_quota';
  if (status === 401) return 'authentication_error';
  if (status === 403 || status === 423) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

/** The error of a problem. */
export const openAiErrorOf = (problem: Problem): OpenAiError => ({
  error: {
    message: problem.message,
    type: typeOf(problem),
    param: problem.field ?? null,
    code: codes[problem.type] ?? problem.type.replaceAll('-', '_'),
  },
});

/**
 * The answer of a problem. A client of OpenAI repeats 429 by itself: where that can't help before a budget renews,
 * `x-should-retry` says so.
 */
export function showOpenAiProblem(problem: Problem, requestId: string): Response {
  const headers = {
    ...problem.headers,
    'x-request-id': requestId,
    ...(problem.type === 'budget-exceeded' && { 'x-should-retry': 'false' }),
  };
  return Response.json(openAiErrorOf(problem), { status: problem.status, headers });
}

const error = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string(),
    }),
  })
  .openapi('OpenAiError');

const refused = (description: string): ReturnType<typeof failed> =>
  ({ description, content: { 'application/json': { schema: error } } }) as never;

/** What every route with OpenAI's form of errors can answer with. */
export const openAiResponses = {
  400: refused('The request is not valid: param names the field'),
  401: refused('No token or API key, or one that is not accepted'),
  403: refused('The policy does not allow this, or a tool of the request'),
  404: refused('No such model, or no such session of this tenant'),
  413: refused('The request is too large'),
  415: refused('The body is not JSON'),
  423: refused('Agent work is halted'),
  429: refused('Too many requests, or a budget has no room: insufficient_quota'),
  502: refused('The model did not answer'),
  503: refused('A part of the platform does not answer'),
  504: refused('The model took too long'),
};
