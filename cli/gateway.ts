import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import * as oidc from 'openid-client';
import { z } from 'zod';
import { parseEvents, type ServerEvent } from './events.ts';
import { CliFailure, exitCodes, reasonOf } from './failure.ts';
import { asking, discover, type Issuer, refusalOf } from './issuer.ts';
import { currentLogin } from './login.ts';
import { type AgentIdentity, isPerson, type Target } from './target.ts';

const problemSchema = z.object({
  title: z.string().optional(),
  detail: z.string().optional(),
  error_description: z.string().optional(),
  error: z.union([z.string(), z.looseObject({ message: z.string() }).transform(({ message }) => message)]).optional(),
});

/** One question and its answer, as the gateway's routes declare it. */
export const turnSchema = z.looseObject({
  id: z.string().optional(),
  prompt: z.string().optional(),
  answer: z.string(),
  status: z.string(),
  error: z.string().nullish(),
  timings: z.record(z.string(), z.number().nullable()).nullish(),
});
export type Turn = z.output<typeof turnSchema>;

/** A session, as the gateway's routes declare it. */
export const sessionSchema = z.looseObject({
  id: z.string(),
  workflowId: z.string(),
  status: z.string(),
  createdAt: z.string(),
  turn: turnSchema.optional(),
  turns: z.array(turnSchema).optional(),
});
export type Session = z.output<typeof sessionSchema>;

/** A page of sessions, newest first. */
export const pageSchema = z.looseObject({ sessions: z.array(sessionSchema), nextCursor: z.string().nullable() });

const timeoutMs = 120_000;

interface Call {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** The gateway's HTTP API, as one client with one token. */
export class Gateway {
  readonly #url: string;
  readonly #token: string;
  readonly #signal: AbortSignal;

  private constructor(url: string, token: string, signal: AbortSignal) {
    this.#url = url;
    this.#token = token;
    this.#signal = signal;
  }

  /** Takes a token of the person who is signed in, else of the agent. It stays in memory. */
  static async signIn(target: Target, signal: AbortSignal): Promise<Gateway> {
    if (target.ca !== undefined) setDefaultCACertificates([...getCACertificates('default'), target.ca]);
    return new Gateway(target.gatewayUrl, await tokenOf(target, signal), signal);
  }

  /** Sends a request and checks the shape of the JSON answer. */
  async json<T>(schema: z.ZodType<T>, method: string, path: string, call: Call = {}): Promise<T> {
    const response = await this.#send(method, path, {
      ...call,
      headers: { accept: 'application/json', ...call.headers },
    });
    const parsed = schema.safeParse(await response.json());
    if (parsed.success) return parsed.data;
    throw new CliFailure(
      `the gateway answered ${method} ${path} with something unknown: ${z.prettifyError(parsed.error)}`,
      'use the soma command of the same version as the platform',
    );
  }

  /** Sends a request and yields the events of its answer until the gateway ends it. */
  async *events(method: string, path: string, call: Call = {}): AsyncGenerator<ServerEvent> {
    const response = await this.#send(method, path, {
      ...call,
      headers: { accept: 'text/event-stream', ...call.headers },
    });
    if (response.body !== null) yield* parseEvents(response.body);
  }

  async #send(method: string, path: string, call: Call): Promise<Response> {
    const body = call.body === undefined ? {} : { body: JSON.stringify(call.body) };
    const type = call.body === undefined ? {} : { 'content-type': 'application/json' };
    const response = await request('the gateway', `${this.#url}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, ...type, ...call.headers },
      signal: AbortSignal.any([this.#signal, AbortSignal.timeout(timeoutMs)]),
      ...body,
    });
    if (response.ok) return response;
    throw await refused(response, `${method} ${path}`);
  }
}

async function tokenOf(target: Target, signal: AbortSignal): Promise<string> {
  const { identity, issuerUrl: url, ca, patience } = target;
  const issuer = { url, ca, patience, signal };
  if (!isPerson(identity)) return agentToken(issuer, identity);
  const login = await currentLogin(issuer, identity.store);
  if (login !== undefined) return login.accessToken;
  throw new CliFailure(`nobody is signed in at ${url} any more`, 'soma login', exitCodes.refused);
}

/** Signs in with the client's own secret (RFC 6749 §4.4). */
async function agentToken(issuer: Issuer, { clientId, clientSecret }: AgentIdentity): Promise<string> {
  const config = await discover(issuer, clientId, clientSecret);
  try {
    return (await asking(issuer, () => oidc.clientCredentialsGrant(config))).access_token;
  } catch (error) {
    if (error instanceof CliFailure) throw error;
    throw new CliFailure(
      `Keycloak did not let client ${clientId} in: ${refusalOf(error)}`,
      'check --client and its secret; soma up repairs the realm',
      exitCodes.refused,
    );
  }
}

async function request(name: string, url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error instanceof Error && error.name === 'TimeoutError') {
      throw new CliFailure(`${name} at ${url} gave no answer within ${timeoutMs / 1000} s`, 'soma status');
    }
    if (error instanceof Error && error.name === 'AbortError') throw error;
    const reason = reasonOf(error);
    const next = /certificate/i.test(reason)
      ? 'give the authority that signed it: --ca-file <file> or SOMA_CA_FILE'
      : 'soma status shows what is down; soma up brings it back';
    throw new CliFailure(`${name} at ${url} cannot be reached: ${reason}`, next, exitCodes.unreachable);
  }
}

async function problemOf(response: Response): Promise<string> {
  const parsed = problemSchema.safeParse(await response.json().catch(() => undefined));
  const problem = parsed.success ? parsed.data : {};
  const text = problem.detail ?? problem.error_description ?? problem.title ?? problem.error;
  return text === undefined ? `status ${response.status}` : `${text} (${response.status})`;
}

async function refused(response: Response, what: string): Promise<CliFailure> {
  const problem = await problemOf(response);
  const { status } = response;
  if (status === 401 || status === 403) {
    const next = 'sign in as a client whose tokens are for this gateway: --client <id>';
    return new CliFailure(`the gateway refused ${what}: ${problem}`, next, exitCodes.refused);
  }
  if (status === 404) {
    return new CliFailure(
      `${what}: ${problem}`,
      'soma session list shows the sessions of your tenant',
      exitCodes.absent,
    );
  }
  if (status === 429) {
    const seconds = response.headers.get('retry-after') ?? 'a few';
    return new CliFailure(`the gateway is asked too often: ${problem}`, `run it again in ${seconds} seconds`);
  }
  if (status === 502)
    return new CliFailure(`the model did not answer: ${problem}`, 'soma logs orchestrator, then soma logs slm');
  if (status >= 500)
    return new CliFailure(`the gateway failed at ${what}: ${problem}`, 'soma status, then soma logs gateway');
  return new CliFailure(`the gateway did not accept ${what}: ${problem}`, 'correct what it names', exitCodes.usage);
}
