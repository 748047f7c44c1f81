import { HTTPException } from 'hono/http-exception';
import { isPostgresAway } from './postgres-away.ts';

/** A type of problem: a name of its own, and what every problem of that type has in common. */
export interface ProblemKind {
  /** Last part of the URN in the answer. */
  readonly type: string;
  readonly status: number;
  readonly title: string;
}

const kinds = {
  'invalid-request': { status: 400, title: 'The request is not valid' },
  'token-missing': { status: 401, title: 'A bearer token is required' },
  'token-invalid': { status: 401, title: 'The token is not accepted' },
  'token-revoked': { status: 401, title: 'The token is not accepted any more' },
  'tenant-missing': { status: 403, title: 'The token belongs to no tenant' },
  suspended: { status: 403, title: 'The tenant or the user is suspended' },
  forbidden: { status: 403, title: 'The policy does not allow this' },
  'not-found': { status: 404, title: 'There is no such thing here' },
  'body-too-large': { status: 413, title: 'The request is too large' },
  'media-type': { status: 415, title: 'The media type is not supported' },
  halted: { status: 423, title: 'Agent work is halted' },
  'rate-limited': { status: 429, title: 'Too many requests' },
  internal: { status: 500, title: 'The service failed' },
  'identity-unavailable': { status: 503, title: 'Tokens cannot be verified at the moment' },
  unavailable: { status: 503, title: 'A part of the platform does not answer' },
} as const;

/** Types of the problems that every governed service answers with; each is a page of the documentation, by name. */
export type ProblemType = keyof typeof kinds;

/** An answer of an API that is not a success, RFC 9457. */
export class Problem extends Error {
  readonly type: string;
  readonly status: number;
  readonly title: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Path of the field of the request that is wrong, where it is one. */
  readonly field: string | undefined;

  /** @param kind one of the common types by name, or a kind of the service's own. */
  constructor(
    kind: ProblemType | ProblemKind,
    detail: string,
    headers: Readonly<Record<string, string>> = {},
    field?: string,
  ) {
    super(detail);
    const { type, status, title } = typeof kind === 'string' ? { type: kind, ...kinds[kind] } : kind;
    this.name = 'Problem';
    this.type = type;
    this.status = status;
    this.title = title;
    this.headers = headers;
    this.field = field;
  }

  /** The HTTP answer. */
  toResponse(requestId: string): Response {
    const { status, title, message: detail } = this;
    const body = { type: `urn:somagent:problem:${this.type}`, title, status, detail, requestId };
    const headers = { ...this.headers, 'content-type': 'application/problem+json', 'x-request-id': requestId };
    return new Response(JSON.stringify(body), { status, headers });
  }
}

/** The problem that a thrown value is shown as; what nobody foresaw shows nothing of itself. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof HTTPException && error.status < 500) return new Problem('invalid-request', error.message);
  if (isPostgresAway(error)) {
    return new Problem('unavailable', 'the database does not answer: try again', { 'retry-after': '2' });
  }
  return new Problem('internal', 'the request could not be handled: report the request id');
}
