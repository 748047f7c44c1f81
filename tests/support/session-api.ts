import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import type { Turn } from '@somagent/orchestrator/contract.ts';
import { get } from './kubectl.ts';
import { eventually } from './wait.ts';

/** Where the platform under test is: the environment, then the outputs of the stack. */
export function address(variable: string, output: string): string {
  const given = process.env[variable];
  if (given) return given.replace(/\/$/, '');
  return String(stackOutputs()[output]).replace(/\/$/, '');
}

/** What the stack under test says of itself. */
export const stackOutputs = (): Readonly<Record<string, unknown>> =>
  JSON.parse(readFileSync(new URL('../../.soma/outputs.dev.json', import.meta.url), 'utf8'));

const servicesNamespace = 'local-services';

/** User name and password of a Secret. */
export async function secretOf(
  name: string,
  namespace = servicesNamespace,
): Promise<{ readonly username: string; readonly password: string }> {
  const { data } = await get<{ data: Record<string, string> }>('secret', name, '-n', namespace);
  const text = (key: string) => Buffer.from(data[key] ?? '', 'base64').toString();
  return { username: text('username'), password: text('password') };
}

async function secret(name: string, key: string): Promise<string> {
  const { data } = await get<{ data: Record<string, string> }>('secret', name, '-n', servicesNamespace);
  return Buffer.from(data[key] ?? '', 'base64').toString();
}

/** An answer of a server. */
export interface Answer<Body = Record<string, unknown>> {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Body;
}

/** What is sent. */
export interface Call {
  readonly method?: string;
  readonly token?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

let authority: Promise<string> | undefined;
/** The certificate of the region's own authority. */
export const authorityPem = (): Promise<string> => {
  authority ??= secret('region-ca-cert', 'ca.crt');
  return authority;
};

async function send(url: string, call: Call, onText: (text: string) => boolean): Promise<Omit<Answer, 'body'>> {
  const ca = await authorityPem();
  const text =
    call.body === undefined ? undefined : typeof call.body === 'string' ? call.body : JSON.stringify(call.body);
  const headers = {
    ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    ...(call.token === undefined ? {} : { authorization: `Bearer ${call.token}` }),
    ...call.headers,
  };
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method: call.method ?? 'GET', ca, headers, timeout: 60_000 }, (incoming) => {
      const done = () => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers });
      incoming.setEncoding('utf8').on('data', (piece: string) => {
        if (onText(piece)) return;
        done();
        outgoing.destroy();
      });
      incoming.on('end', done).on('error', reject);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`${url}: nothing for 60 s`)));
    outgoing.on('error', reject).end(text);
  });
}

/** Calls the gateway and reads the JSON answer. */
export async function call<Body = Record<string, unknown>>(path: string, options: Call = {}): Promise<Answer<Body>> {
  let text = '';
  const head = await send(`${address('SOMA_GATEWAY_URL', 'gatewayUrl')}${path}`, options, (piece) => {
    text += piece;
    return true;
  });
  return { ...head, body: (text === '' ? {} : JSON.parse(text)) as Body };
}

/**
 * Calls as a good client does: again while the answer is 429 or a 5xx, or the connection went with its pod.
 * What is sent must be safe to repeat.
 * @throws Error that names the last refusal when there is no other answer within `seconds`
 */
export function callPatiently<Body = Record<string, unknown>>(
  path: string,
  options: Call = {},
  seconds = 60,
): Promise<Answer<Body>> {
  return eventually(`${options.method ?? 'GET'} ${path}`, seconds, async () => {
    const answer = await call<Body>(path, options);
    if (answer.status !== 429 && answer.status < 500) return answer;
    throw new Error(`status ${answer.status} ${JSON.stringify(answer.body)}`);
  });
}

/** One server-sent event. */
export interface SentEvent {
  readonly id: number;
  readonly type: string;
  readonly data: Partial<Turn> & { readonly text?: string };
}

/** Reads events until the stream ends or `each` says false. */
export async function events(
  path: string,
  options: Call,
  each: (event: SentEvent) => boolean = () => true,
): Promise<SentEvent[]> {
  const seen: SentEvent[] = [];
  let pending = '';
  const headers = { accept: 'text/event-stream', ...options.headers };
  const { status } = await send(
    `${address('SOMA_GATEWAY_URL', 'gatewayUrl')}${path}`,
    { ...options, headers },
    (piece) => {
      const blocks = (pending + piece).split('\n\n');
      pending = blocks.pop() ?? '';
      return blocks
        .filter((block) => !block.startsWith(':'))
        .every((block) => {
          const event = parseEvent(block);
          seen.push(event);
          return each(event);
        });
    },
  );
  if (status !== 200) throw new Error(`${path}: status ${status} instead of a stream: ${pending}`);
  return seen;
}

function parseEvent(block: string): SentEvent {
  const fields = Object.fromEntries(
    block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]),
  );
  return { id: Number(fields.id), type: String(fields.event), data: JSON.parse(fields.data ?? '{}') };
}

/** Asks for access tokens of a client by its client credentials; every call is one request, whatever its answer. */
export async function tokenRequester(client: string): Promise<() => Promise<{ status: number; text: string }>> {
  const credentials = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: client,
    client_secret: await secret(`keycloak-client-${client}`, 'password'),
  }).toString();
  return () => requestToken(credentials);
}

/** A fresh access token of a client of the realm. */
export async function tokenOf(client: string): Promise<string> {
  const ask = await tokenRequester(client);
  const { status, text } = await ask();
  if (status !== 200) throw new Error(`no token for ${client}: status ${status} ${text}`);
  return String(JSON.parse(text).access_token);
}

/** Asks for a token with the parameters of a request as a form. */
export async function requestToken(credentials: string): Promise<{ readonly status: number; readonly text: string }> {
  let text = '';
  const { status } = await send(
    `${address('SOMA_ISSUER_URL', 'issuerUrl')}/protocol/openid-connect/token`,
    { method: 'POST', body: credentials, headers: { 'content-type': 'application/x-www-form-urlencoded' } },
    (piece) => {
      text += piece;
      return true;
    },
  );
  return { status, text };
}

/** The public keys of the issuer, as it publishes them. */
export async function issuerKeys(): Promise<{ keys: Record<string, string>[] }> {
  let text = '';
  await send(`${address('SOMA_ISSUER_URL', 'issuerUrl')}/protocol/openid-connect/certs`, {}, (piece) => {
    text += piece;
    return true;
  });
  return JSON.parse(text);
}
