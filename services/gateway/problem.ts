/** Types of the problems that the API answers with; each is a page of the documentation, by name. */
export const problems = {
  'invalid-request': { status: 400, title: 'The request is not valid' },
  'token-missing': { status: 401, title: 'A bearer token is required' },
  'token-invalid': { status: 401, title: 'The token is not accepted' },
  'tenant-missing': { status: 403, title: 'The token belongs to no tenant' },
  'not-found': { status: 404, title: 'There is no such thing here' },
  'session-closed': { status: 409, title: 'The session is closed' },
  'key-reused': { status: 422, title: 'The idempotency key was used for another request' },
  'body-too-large': { status: 413, title: 'The request is too large' },
  'media-type': { status: 415, title: 'The media type is not supported' },
  'too-many-turns': { status: 429, title: 'Too many turns wait in this session' },
  'rate-limited': { status: 429, title: 'Too many requests' },
  internal: { status: 500, title: 'The gateway failed' },
  'generation-failed': { status: 502, title: 'The model did not answer' },
  'identity-unavailable': { status: 503, title: 'Tokens cannot be verified at the moment' },
  unavailable: { status: 503, title: 'A part of the platform does not answer' },
} as const;

export type ProblemType = keyof typeof problems;

/** An answer of the API that is not a success, RFC 9457. */
export class Problem extends Error {
  readonly type: ProblemType;
  readonly headers: Readonly<Record<string, string>>;

  constructor(type: ProblemType, detail: string, headers: Readonly<Record<string, string>> = {}) {
    super(detail);
    this.name = 'Problem';
    this.type = type;
    this.headers = headers;
  }

  /** The HTTP answer. */
  toResponse(requestId: string): Response {
    const { status, title } = problems[this.type];
    const body = { type: `urn:somagent:problem:${this.type}`, title, status, detail: this.message, requestId };
    const headers = { ...this.headers, 'content-type': 'application/problem+json', 'x-request-id': requestId };
    return new Response(JSON.stringify(body), { status, headers });
  }
}
