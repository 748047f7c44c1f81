import { randomUUID } from 'node:crypto';
import createClient, { type Client } from 'openapi-fetch';
import type { paths as AnalyticsPaths } from './generated/analytics.ts';
import type { paths as AuditPaths } from './generated/audit.ts';
import type { paths as GatewayPaths } from './generated/gateway.ts';
import type { paths as IdentityPaths } from './generated/identity.ts';
import type { paths as MemoryPaths } from './generated/memory.ts';
import type { paths as TrainingPaths } from './generated/training.ts';
import { type RetryOptions, retrying } from './retry.ts';

/** Where a service is and who asks. */
export interface ClientOptions extends RetryOptions {
  /** Address of the service. */
  readonly url: string;
  /** An access token or an API key, asked for before each request: whoever renews it decides when. */
  readonly token: () => string | Promise<string>;
  /** @default the global fetch */
  readonly fetch?: (request: Request) => Promise<Response>;
}

/** The API of sessions, typed by its declared routes. */
export const gatewayClient = (options: ClientOptions): Client<GatewayPaths> => clientOf<GatewayPaths>(options);

/** The API of tenants, people, keys, training and halts, typed by its declared routes. */
export const identityClient = (options: ClientOptions): Client<IdentityPaths> => clientOf<IdentityPaths>(options);

/** The API of the audit log and the verdicts, typed by its declared routes. */
export const auditClient = (options: ClientOptions): Client<AuditPaths> => clientOf<AuditPaths>(options);

/** The API of reports, forecast and anomalies, typed by its declared routes. */
export const analyticsClient = (options: ClientOptions): Client<AnalyticsPaths> => clientOf<AnalyticsPaths>(options);

/** The API of training mode: approvals, runs, promotion; typed by its declared routes. */
export const trainingClient = (options: ClientOptions): Client<TrainingPaths> => clientOf<TrainingPaths>(options);

/** The API of what agents remember, typed by its declared routes. */
export const memoryClient = (options: ClientOptions): Client<MemoryPaths> => clientOf<MemoryPaths>(options);

function clientOf<Paths extends object>({ url, token, fetch = globalThis.fetch, ...retry }: ClientOptions) {
  const client = createClient<Paths>({ baseUrl: url.replace(/\/$/, ''), fetch: retrying(fetch, retry) });
  client.use({
    async onRequest({ request }) {
      request.headers.set('authorization', `Bearer ${await token()}`);
      // Without one a lost answer could not be asked for again.
      if (request.method === 'POST' && !request.headers.has('idempotency-key')) {
        request.headers.set('idempotency-key', randomUUID());
      }
      return request;
    },
  });
  return client;
}

/** An answer that is no success: what the problem of RFC 9457 says. */
export class SomaError extends Error {
  /** Last part of the problem's type, such as `session-closed`. */
  readonly type: string;
  readonly status: number;
  /** To be given to `soma why`. */
  readonly requestId: string | null;

  constructor(response: Response, problem: { readonly type?: string; readonly detail?: string } | undefined) {
    super(problem?.detail ?? `the service answered ${response.status}`);
    this.name = 'SomaError';
    this.type = problem?.type?.replace('urn:somagent:problem:', '') ?? 'unknown';
    this.status = response.status;
    this.requestId = response.headers.get('x-request-id');
  }
}

/** The data of a successful answer. @throws SomaError for any other. */
export function dataOf<Data>(answer: {
  readonly data?: Data;
  readonly error?: { readonly type?: string; readonly detail?: string };
  readonly response: Response;
}): Data {
  if (answer.error !== undefined || answer.data === undefined) throw new SomaError(answer.response, answer.error);
  return answer.data;
}
